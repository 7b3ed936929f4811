"""Benchmark of the service, compared with the model alone and with other model servers: `make bench`."""
