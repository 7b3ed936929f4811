"""Wheel of the image inference service. The application is in the folder `app`, outside the module search path of other programs."""
