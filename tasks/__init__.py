"""Celery application of the worker: `celery -A tasks worker`."""

from tasks.app import app

__all__ = ["app"]
