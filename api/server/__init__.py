"""HTTP server: gunicorn with gevent, its connections, bodies and graceful stop."""
