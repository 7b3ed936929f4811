"""Helpers of all processes: log, Redis client, caches, gevent, files and process settings."""
