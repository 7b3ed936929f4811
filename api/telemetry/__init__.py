"""Metrics and spans of HTTP requests."""
