"""OpenAPI 3.1 description of the API, built from one typed list of operations."""
