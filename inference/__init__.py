"""Code that the API, the workers and the relay share. Imports neither `api` nor `tasks`, and no TensorFlow at import time."""

#: The service's version; pyproject.toml and `server.py --version` read it here.
__version__ = "0.1.0"
