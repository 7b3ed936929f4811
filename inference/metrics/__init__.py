"""Metrics for Prometheus: the instruments of each part, and their text. docs/metrics.md has all of them."""
