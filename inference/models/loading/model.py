"""A model's files as one compiled graph that fits its description."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf  # type: ignore[import-untyped]
from numpy.typing import ArrayLike, NDArray

from inference.cores import usable_cores
from inference.errors import ConfigurationError
from inference.models.loading.devices import CPU, Device
from inference.models.loading.lite import LiteGraph, convert
from inference.models.loading.problems import reason
from inference.models.loading.readers import ReadModel, read_model
from inference.models.spec import ModelSpec

TRIAL_IMAGES = 2
#: How far LiteRT's answers to trial images may be from TensorFlow's: absolute, or as a part of the value.
LITE_TOLERANCE = 1e-5

TENSORFLOW, LITE = "TensorFlow", "LiteRT"


class LoadedModel:
    """A model as one compiled graph, for batches of any size.

    Args:
        function: takes (n, height, width, channels) in the description's dtype, gives (n, output_size) float32.
        output_size: number of classes.
        runtime: what runs the graph, TENSORFLOW or LITE.
        model: what the function was compiled from; TensorFlow's compiled graph does not keep its weights alive.
    """

    def __init__(
        self, function: Callable[[NDArray[Any]], ArrayLike], output_size: int, runtime: str, model: ReadModel | None = None
    ) -> None:
        self._function = function
        self._model = model
        self.output_size = output_size
        self.runtime = runtime

    def predict(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Classify `batch`, (n, height, width, channels) in the description's dtype, as (n, output_size) float32.

        The first call with a new n is slower than the ones after it: see `warm_up`.
        """
        return np.asarray(self._function(batch))


def load_model(spec: ModelSpec, device: Device = CPU) -> LoadedModel:
    """Load the files of `spec` and trace its graph; weights and graph are on `device`.

    On a CPU LiteRT runs the graph, where it can and its answers to trial images are TensorFlow's within `LITE_TOLERANCE`.

    Raises:
        ConfigurationError: a file cannot be read or is refused, or the model does not fit its description.
    """
    with tf.device(device.name):
        model = read_model(spec, half_precision=device.half_precision)
        _check_input(model, spec)
        graph = _compile(model, spec)
        output_size = _output_size(graph, spec)
    _check_labels(spec, output_size)
    lite = None if device.is_gpu or not spec.fits_lite else convert(graph, usable_cores())
    if lite is not None and _agree(graph, lite, spec):
        return LoadedModel(lite, output_size, LITE)

    def run(batch: NDArray[Any]) -> tf.Tensor:
        with tf.device(device.name):
            return graph(tf.constant(batch))[0]

    return LoadedModel(run, output_size, TENSORFLOW, model)


def warm_up(model: LoadedModel, spec: ModelSpec, batch_sizes: Sequence[int]) -> None:
    """Predict black images once at each of `batch_sizes`, so that no caller pays for a first time."""
    for size in batch_sizes:
        model.predict(np.zeros((size, *spec.input.shape), spec.input.numpy_dtype))


def _check_input(model: ReadModel, spec: ModelSpec) -> None:
    if len(model.input_shapes) != 1:
        raise ConfigurationError(f"{spec.name}: the model in {_files(spec)} has {len(model.input_shapes)} inputs, expected 1")
    batch, *shape = model.input_shapes[0] or (None,)
    fits = len(shape) == len(spec.input.shape) and all(
        size in {None, wanted} for size, wanted in zip(shape, spec.input.shape, strict=True)
    )
    if not fits:
        raise ConfigurationError(
            f"{spec.name}: the description says input.shape {list(spec.input.shape)}, the model in {_files(spec)} takes {shape}",
            field="input.shape",
        )
    if batch is not None:
        raise ConfigurationError(
            f"{spec.name}: the model in {_files(spec)} takes batches of exactly {batch}, expected any batch size"
        )


def _compile(model: ReadModel, spec: ModelSpec) -> Any:
    """A concrete function from images in the description's dtype to the list of the model's outputs in float32."""

    def classify(images: tf.Tensor) -> list[tf.Tensor]:
        outputs = tf.nest.flatten(model.call(images))
        return [tf.cast(output, tf.float32) for output in outputs]

    # Called as it is: model.predict would take tens of milliseconds to start. Without AutoGraph: no layer needs it, and its
    # source files in the temporary folder outlive a process that is killed.
    signature = tf.TensorSpec((None, *spec.input.shape), spec.input.dtype)
    function = tf.function(classify, input_signature=[signature], jit_compile=spec.xla or None, autograph=False)
    with _failing_on_images(spec):
        return function.get_concrete_function()


def _agree(graph: Any, lite: LiteGraph, spec: ModelSpec) -> bool:
    """Whether both give the same for images of noise, bright ones and (of floats) some from 0 to 1, in batches of two sizes."""
    bright = np.random.default_rng(0).integers(0, 256, (TRIAL_IMAGES, *spec.input.shape))
    is_float = np.issubdtype(spec.input.numpy_dtype, np.floating)
    images = np.concatenate([bright, bright / 255] if is_float else [bright]).astype(spec.input.numpy_dtype)
    expected = graph(tf.constant(images))[0].numpy()
    try:
        answers = [lite(images), np.concatenate([lite(images[:1]), lite(images[1:])])]
    except (RuntimeError, ValueError):
        return False
    return all(
        answer.shape == expected.shape and np.allclose(answer, expected, rtol=LITE_TOLERANCE, atol=LITE_TOLERANCE)
        for answer in answers
    )


def _output_size(graph: Any, spec: ModelSpec) -> int:
    """The number of classes, from a trial: the shapes in the file do not say that each image gets its own answer."""
    with _failing_on_images(spec):
        outputs = graph(tf.zeros((TRIAL_IMAGES, *spec.input.shape), spec.input.dtype))
    shapes = [tuple(output.shape) for output in outputs]
    if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][0] != TRIAL_IMAGES:  # noqa: PLR2004 rows and classes
        raise ConfigurationError(
            f"{spec.name}: the model in {_files(spec)} must have one output of shape (n, classes); for {TRIAL_IMAGES}"
            f" images it gave {' and '.join(map(str, shapes)) or 'none'}"
        )
    return int(shapes[0][1])


@contextmanager
def _failing_on_images(spec: ModelSpec) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise ConfigurationError(
            f"{spec.name}: the model in {_files(spec)} fails on images of shape {list(spec.input.shape)}: {reason(error)}"
        ) from error


def _check_labels(spec: ModelSpec, output_size: int) -> None:
    if spec.labels and len(spec.labels) != output_size:
        raise ConfigurationError(
            f"{spec.name}: there are {len(spec.labels)} labels, and the model in {_files(spec)} has {output_size} classes",
            field="labels",
        )


def _files(spec: ModelSpec) -> str:
    return " and ".join(file.location for file in spec.local_files.values())
