"""Load a model's files and run it. The only package that imports TensorFlow.

Imported in the predictor process only: importing TensorFlow takes seconds and hundreds of megabytes, and the API and
the Celery process do not need it.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only; both are read when TensorFlow and Keras are imported
os.environ["KERAS_BACKEND"] = "tensorflow"

from inference.models.loading.devices import Device, open_devices
from inference.models.loading.model import LoadedModel, load_model, warm_up

__all__ = ["Device", "LoadedModel", "load_model", "open_devices", "warm_up"]
