"""Load a model's files with TensorFlow and Keras. The only package that imports them.

Importing TensorFlow takes seconds and hundreds of megabytes; only a predictor process whose model needs it, and the process
that converts a model for LiteRT, import this package.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only; both are read when TensorFlow and Keras are imported
os.environ["KERAS_BACKEND"] = "tensorflow"
