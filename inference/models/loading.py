"""Load a model's file and run it. The only module that touches TensorFlow.

Imported in the predictor process alone: importing TensorFlow takes seconds and hundreds of megabytes, and the API and
the Celery process need neither.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.errors import ConfigurationError
from inference.models.spec import ModelSpec

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only; both are read when TensorFlow and Keras are imported
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras  # type: ignore[import-untyped]
import tensorflow as tf  # type: ignore[import-untyped]

KERAS_SUFFIX = ".keras"
TRIAL_IMAGES = 2


class LoadedModel:
    """A model as one compiled graph, for batches of any size.

    Args:
        function: takes (n, height, width, channels) in the description's dtype, gives (n, output_size) float32.
        output_size: number of classes.
    """

    def __init__(self, function: Callable[[NDArray[Any]], tf.Tensor], output_size: int) -> None:
        self._function = function
        self.output_size = output_size

    def predict(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Classify `batch`, (n, height, width, channels) in the description's dtype, as (n, output_size) float32.

        The first call with a new n is slower than the ones after it: see `warm_up`.
        """
        predictions: NDArray[np.float32] = self._function(batch).numpy()
        return predictions


def load_model(spec: ModelSpec) -> LoadedModel:
    """Load the file of `spec` and trace its graph.

    Raises:
        ConfigurationError: the file is not a Keras 3 model that can be read, or it does not fit the description.
    """
    model = _read_file(spec)
    _check_input(model, spec)
    graph = _compile(model, spec)
    output_size = _output_size(graph, spec)
    _check_labels(spec, output_size)
    return LoadedModel(lambda batch: graph(batch)[0], output_size)


def warm_up(model: LoadedModel, spec: ModelSpec, batch_sizes: Sequence[int]) -> None:
    """Predict black images once at each of `batch_sizes`, so that no caller pays for a first time."""
    for size in batch_sizes:
        model.predict(np.zeros((size, *spec.input.shape), spec.input.numpy_dtype))


def _read_file(spec: ModelSpec) -> keras.Model:
    if spec.path.suffix != KERAS_SUFFIX or not zipfile.is_zipfile(spec.path):
        raise ConfigurationError(
            f"{spec.name}: {spec.file} is not a Keras 3 file, which is a zip archive named *{KERAS_SUFFIX}", field="file"
        )
    try:
        # safe_mode refuses layers that carry code of their own
        return keras.saving.load_model(spec.path, compile=False, safe_mode=True)
    except Exception as error:
        raise ConfigurationError(f"{spec.name}: Keras cannot read {spec.file}: {_reason(error)}", field="file") from error


def _check_input(model: keras.Model, spec: ModelSpec) -> None:
    shapes = [tuple(tensor.shape) for tensor in getattr(model, "inputs", None) or ()]
    if len(shapes) != 1:
        raise ConfigurationError(f"{spec.name}: the model in {spec.file} has {len(shapes)} inputs, expected 1")
    batch, *shape = shapes[0]
    fits = len(shape) == len(spec.input.shape) and all(
        size in {None, wanted} for size, wanted in zip(shape, spec.input.shape, strict=True)
    )
    if not fits:
        raise ConfigurationError(
            f"{spec.name}: the description says input.shape {list(spec.input.shape)}, the model in {spec.file} takes {shape}",
            field="input.shape",
        )
    if batch is not None:
        raise ConfigurationError(
            f"{spec.name}: the model in {spec.file} takes batches of exactly {batch}, expected any batch size"
        )


def _compile(model: keras.Model, spec: ModelSpec) -> Callable[[NDArray[Any]], list[tf.Tensor]]:
    """The graph from images in the description's dtype to the list of the model's outputs in float32."""

    def classify(images: tf.Tensor) -> list[tf.Tensor]:
        outputs = tf.nest.flatten(model(tf.cast(images, tf.float32), training=False))
        return [tf.cast(output, tf.float32) for output in outputs]

    # called as it is: model.predict would take tens of milliseconds to start
    signature = tf.TensorSpec((None, *spec.input.shape), spec.input.dtype)
    graph: Callable[[NDArray[Any]], list[tf.Tensor]] = tf.function(classify, input_signature=[signature])
    return graph


def _output_size(graph: Callable[[NDArray[Any]], list[tf.Tensor]], spec: ModelSpec) -> int:
    """The number of classes, from a trial: the shapes in the file do not say that each image gets its own answer."""
    try:
        outputs = graph(np.zeros((TRIAL_IMAGES, *spec.input.shape), spec.input.numpy_dtype))
    except Exception as error:
        raise ConfigurationError(
            f"{spec.name}: the model in {spec.file} fails on images of shape {list(spec.input.shape)}: {_reason(error)}"
        ) from error
    shapes = [tuple(output.shape) for output in outputs]
    if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][0] != TRIAL_IMAGES:  # noqa: PLR2004 rows and classes
        raise ConfigurationError(
            f"{spec.name}: the model in {spec.file} must have one output of shape (n, classes); for {TRIAL_IMAGES}"
            f" images it gave {' and '.join(map(str, shapes)) or 'none'}"
        )
    return int(shapes[0][1])


def _check_labels(spec: ModelSpec, output_size: int) -> None:
    if spec.labels_file is not None and len(spec.labels) != output_size:
        raise ConfigurationError(
            f"{spec.name}: {spec.labels_file} has {len(spec.labels)} labels, the model in {spec.file} has {output_size} classes",
            field="labels_file",
        )


def _reason(error: Exception) -> str:
    """The first sentence of what a library has to say; the whole of it stays in the chained exception."""
    text = str(error).strip()
    gist = re.search(r"\x1b\[1m(.+?)\x1b\[0m", text, re.DOTALL)  # Keras prints it bold, among the call's arguments
    return re.split(r"\.\s|\n", gist[1] if gist else text)[0].rstrip(".") or type(error).__name__
