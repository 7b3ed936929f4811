"""Celery's side: bootstep, request, remote control, main loop."""
