"""Compilation of a model's files to one graph that fits its description."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf  # type: ignore[import-untyped]
from numpy.typing import ArrayLike, NDArray

from inference.errors import ConfigurationError
from inference.models.loading.devices import CPU, Device
from inference.models.loading.lite import LiteGraph, convert
from inference.models.loading.outputs import both_classes, check_probabilities, check_probability, trial_batches
from inference.models.loading.problems import reason
from inference.models.loading.readers import ReadModel, read_model
from inference.models.spec import ModelSpec
from inference.runtime.cpu import usable_cores
from inference.runtime.public_text import with_reason

#: Maximum difference between LiteRT's and TensorFlow's outputs for trial images: absolute, or relative to the value.
LITE_TOLERANCE = 1e-5

TENSORFLOW, LITE = "TensorFlow", "LiteRT"


class LoadedModel:
    """Model as one compiled graph, for batches of any size.

    Args:
        function: takes (n, height, width, channels) in the description's dtype, returns (n, output_size) float32.
        output_size: number of classes.
        runtime: the library that runs the graph, TENSORFLOW or LITE.
        model: the source of the function, kept because TensorFlow's compiled graph does not keep its weights alive.
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

        The first call with a new n is slower than later ones: see `warm_up`.
        """
        return np.asarray(self._function(batch))


def load_model(spec: ModelSpec, device: Device = CPU) -> LoadedModel:
    """Load the files of `spec` and trace its graph; weights and graph are on `device`.

    On a CPU, LiteRT runs the graph if it can, and if its outputs for trial images equal TensorFlow's within `LITE_TOLERANCE`.

    Raises:
        ConfigurationError: a file cannot be read or is refused, or the model does not fit its description.
    """
    with tf.device(device.name):
        model = read_model(spec, half_precision=device.half_precision)
        _check_input(model, spec)
        graph, trial = _compile_checked(model, spec)
    _check_labels(spec, trial)
    lite = None if device.is_gpu or not spec.fits_lite else convert(graph, usable_cores())
    if lite is not None and _is_equal(lite, trial):
        return LoadedModel(lite, trial.output_size, LITE)

    def run(batch: NDArray[Any]) -> tf.Tensor:
        with tf.device(device.name):
            return graph(tf.constant(batch))[0]

    return LoadedModel(run, trial.output_size, TENSORFLOW, model)


def warm_up(model: LoadedModel, spec: ModelSpec, batch_sizes: Sequence[int]) -> None:
    """Predict black images once at each of `batch_sizes`, so that no caller waits for a slow first call."""
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


@dataclass(frozen=True)
class _Trial:
    images: NDArray[Any]
    #: TensorFlow's outputs for them: probabilities (n, classes) float32, except rows that are not finite
    answers: NDArray[np.float32]
    #: whether the model has one output unit
    is_binary: bool

    @property
    def output_size(self) -> int:
        return int(self.answers.shape[1])


def _compile_checked(model: ReadModel, spec: ModelSpec) -> tuple[Any, _Trial]:
    """Compile a concrete function from images to probabilities, and try it. Raises ConfigurationError."""
    graph = _compile(model.call, spec)
    batches = trial_batches(spec.input)
    answers = _predict_batches(graph, batches, spec)
    is_binary = answers.shape[1] == 1
    try:
        (check_probability if is_binary else check_probabilities)(answers, graph)
    except ConfigurationError as error:
        raise ConfigurationError(f"{spec.name}: the model in {_files(spec)} {error.detail}") from error
    if is_binary:
        graph = _compile(partial(_both_classes_of, graph), spec)
        answers = both_classes(tf.constant(answers)).numpy()
    return graph, _Trial(np.concatenate(batches), answers, is_binary)


def _compile(call: Callable[[tf.Tensor], Any], spec: ModelSpec) -> Any:
    """Compile a concrete function from images in the description's dtype to the list of `call`'s outputs, floats as float32."""

    def classify(images: tf.Tensor) -> list[tf.Tensor]:
        outputs = tf.nest.flatten(call(images))
        return [tf.cast(output, tf.float32) if output.dtype.is_floating else output for output in outputs]

    # Called directly: model.predict needs tens of milliseconds to start. Without AutoGraph: no layer needs it, and if the
    # process is killed, its source files remain in the temporary folder.
    signature = tf.TensorSpec((None, *spec.input.shape), spec.input.dtype)
    function = tf.function(classify, input_signature=[signature], jit_compile=spec.xla or None, autograph=False)
    with _invalid_model_on_error(spec):
        return function.get_concrete_function()


def _both_classes_of(graph: Any, images: tf.Tensor) -> tf.Tensor:
    return both_classes(tf.reshape(graph(images)[0], (-1, 1)))


def _is_equal(lite: LiteGraph, trial: _Trial) -> bool:
    """Whether LiteRT returns the same as TensorFlow in batches of several sizes; rows that are not finite are ignored."""
    images, finite = trial.images, np.isfinite(trial.answers).all(axis=1)
    try:
        answers = [lite(images), np.concatenate([lite(images[:1]), lite(images[1:])])]
    except (RuntimeError, ValueError):
        return False
    return all(
        answer.shape == trial.answers.shape
        and np.allclose(answer[finite], trial.answers[finite], rtol=LITE_TOLERANCE, atol=LITE_TOLERANCE)
        for answer in answers
    )


def _predict_batches(graph: Any, batches: Sequence[NDArray[Any]], spec: ModelSpec) -> NDArray[np.float32]:
    """Run trial images, (n, outputs): the shapes in the file do not show that each image gets an output of its own."""
    answers = [_predict_batch(graph, images, spec) for images in batches]
    widths = sorted({answer.shape[1] for answer in answers})
    if len(widths) > 1:
        found = f"{' or '.join(map(str, widths))} values for an image"
    elif answers[0].dtype != np.float32:
        found = f"{answers[0].dtype} values"
    else:
        return np.concatenate(answers)
    raise ConfigurationError(
        f"{spec.name}: the model in {_files(spec)} must return one probability for each class;"
        f" for trial images it returned {found}"
    )


def _predict_batch(graph: Any, images: NDArray[Any], spec: ModelSpec) -> NDArray[Any]:
    with _invalid_model_on_error(spec):
        outputs: list[NDArray[Any]] = [output.numpy() for output in graph(tf.constant(images))]
    shapes = [output.shape for output in outputs]
    if len(shapes) != 1 or len(shapes[0]) not in {1, 2} or shapes[0][0] != len(images) or 0 in shapes[0]:
        raise ConfigurationError(
            f"{spec.name}: the model in {_files(spec)} must have one output of shape (n, classes); for {len(images)}"
            f" images it returned {' and '.join(map(str, shapes)) or 'none'}"
        )
    return outputs[0].reshape(len(images), -1)


@contextmanager
def _invalid_model_on_error(spec: ModelSpec) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        sentence = f"{spec.name}: the model in {_files(spec)} fails on images of shape {list(spec.input.shape)}"
        why = reason(error)
        raise ConfigurationError(f"{sentence}: {why}", public=with_reason(sentence, why)) from error


def _check_labels(spec: ModelSpec, trial: _Trial) -> None:
    if not spec.labels or len(spec.labels) == trial.output_size:
        return
    why = ": its one output unit is the probability of the second, and the first is the complement" if trial.is_binary else ""
    raise ConfigurationError(
        f"{spec.name}: there are {len(spec.labels)} labels, and the model in {_files(spec)} has {trial.output_size} classes{why}",
        field="labels",
    )


def _files(spec: ModelSpec) -> str:
    return " and ".join(file.location for file in spec.local_files.values())
