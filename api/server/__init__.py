"""gunicorn with gevent: connections, bodies, graceful end."""
