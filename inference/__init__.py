"""What the API, the workers and the relay share. Imports neither `api` nor `tasks`, and no TensorFlow at import time."""
