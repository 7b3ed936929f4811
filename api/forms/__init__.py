"""Requests: fields, options, bodies."""
