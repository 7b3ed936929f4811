"""The usual first design: Flask, MinIO, `task.delay().get()`, and a worker that runs one image at a time."""
