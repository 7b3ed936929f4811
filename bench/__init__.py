"""How fast the service is, beside the model's own speed and beside what people would use instead: `make bench`."""
