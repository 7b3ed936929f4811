"""Status of the service: collection, checks and output as text."""
