"""Stages from a message to a committed result. They import no Celery."""
