"""Celery's side of a worker: bootstep, request, remote control, main loop."""
