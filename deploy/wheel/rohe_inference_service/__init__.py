"""Image inference service as a wheel: the application is in the folder `app`, which other programs do not import from."""
