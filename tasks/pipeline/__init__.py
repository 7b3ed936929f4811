"""Stages from a message to a committed result. Imports no Celery."""
