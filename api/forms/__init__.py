"""Reading of requests: fields, options, bodies."""
