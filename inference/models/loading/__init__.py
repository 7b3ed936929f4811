"""Load a model's files and run it, in the predictor process. Importing this package imports no TensorFlow."""

from inference.models.loading.device import CPU, Device
from inference.models.loading.dispatch import load_model, load_models
from inference.models.loading.model import LoadedModel, warm_up

__all__ = ["CPU", "Device", "LoadedModel", "load_model", "load_models", "warm_up"]
