"""Checks and headers of every request: origin, host, proxies."""
