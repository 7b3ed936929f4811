"""Trial of a model with a few images: whether it fits its description, and whether another runtime answers the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inference.errors import ConfigurationError
from inference.models.loading.model import both_classes
from inference.models.loading.outputs import Bounds, check_probabilities, check_probability, trial_batches
from inference.models.loading.problems import reason
from inference.models.spec import ModelSpec
from inference.runtime.public_text import with_reason

#: Maximum difference between LiteRT's and TensorFlow's outputs for trial images: absolute, or relative to the value.
LITE_TOLERANCE = 1e-5

#: Runs a model on (n, height, width, channels) in the description's dtype; returns all its outputs.
Run = Callable[[NDArray[Any]], Sequence[NDArray[Any]]]


@dataclass(frozen=True)
class Trial:
    images: NDArray[Any]
    #: the model's outputs for them: probabilities (n, classes) float32, except rows that are not finite
    answers: NDArray[np.float32]
    #: whether the model has one output unit
    is_binary: bool

    @property
    def output_size(self) -> int:
        return int(self.answers.shape[1])


def check_input(spec: ModelSpec, shapes: Sequence[tuple[int | None, ...]]) -> None:
    """Check the shapes of a model's inputs. Raises ConfigurationError.

    Args:
        shapes: for each input (batch, height, width, channels), None for any size.
    """
    files = named_files(spec)
    if len(shapes) != 1:
        raise ConfigurationError(f"{spec.name}: the model in {files} has {len(shapes)} inputs, expected 1")
    batch, *shape = shapes[0] or (None,)
    fits = len(shape) == len(spec.input.shape) and all(
        size in {None, wanted} for size, wanted in zip(shape, spec.input.shape, strict=True)
    )
    if not fits:
        raise ConfigurationError(
            f"{spec.name}: the description says input.shape {list(spec.input.shape)}, the model in {files} takes {shape}",
            field="input.shape",
        )
    if batch is not None:
        raise ConfigurationError(f"{spec.name}: the model in {files} takes batches of exactly {batch}, expected any batch size")


def try_model(spec: ModelSpec, run: Run, find_bounds: Callable[[], Bounds]) -> Trial:
    """Run a model on trial images and check its outputs.

    Args:
        find_bounds: finds the bounds of the model's output for any image; called only if the trial's outputs do not suffice.

    Raises:
        ConfigurationError: the model fails, or its outputs are not probabilities or do not fit the labels.
    """
    batches = trial_batches(spec.input)
    answers = _predict_batches(run, batches, spec)
    is_binary = answers.shape[1] == 1
    try:
        (check_probability if is_binary else check_probabilities)(answers, find_bounds)
    except ConfigurationError as error:
        raise ConfigurationError(f"{spec.name}: the model in {named_files(spec)} {error.detail}") from error
    trial = Trial(np.concatenate(batches), both_classes(answers) if is_binary else answers, is_binary)
    check_labels(spec, trial.output_size, is_binary=is_binary)
    return trial


def is_equal(predict: Callable[[NDArray[Any]], ArrayLike], trial: Trial) -> bool:
    """Whether `predict` returns the trial's outputs in batches of several sizes; rows that are not finite are ignored."""
    images, finite = trial.images, np.isfinite(trial.answers).all(axis=1)
    try:
        answers = [np.asarray(predict(images)), np.concatenate([predict(images[:1]), predict(images[1:])])]
    except (RuntimeError, ValueError):
        return False
    return all(
        answer.shape == trial.answers.shape
        and np.allclose(answer[finite], trial.answers[finite], rtol=LITE_TOLERANCE, atol=LITE_TOLERANCE)
        for answer in answers
    )


def check_labels(spec: ModelSpec, output_size: int, *, is_binary: bool) -> None:
    """Check that the description has a label for each class, or none. Raises ConfigurationError."""
    if not spec.labels or len(spec.labels) == output_size:
        return
    why = ": its one output unit is the probability of the second, and the first is the complement" if is_binary else ""
    raise ConfigurationError(
        f"{spec.name}: there are {len(spec.labels)} labels, and the model in {named_files(spec)} has {output_size} classes{why}",
        field="labels",
    )


@contextmanager
def invalid_model_on_error(spec: ModelSpec) -> Iterator[None]:
    """Raise ConfigurationError, with the reason, for any error of the model's code."""
    try:
        yield
    except Exception as error:
        sentence = f"{spec.name}: the model in {named_files(spec)} fails on images of shape {list(spec.input.shape)}"
        why = reason(error)
        raise ConfigurationError(f"{sentence}: {why}", public=with_reason(sentence, why)) from error


def named_files(spec: ModelSpec) -> str:
    return " and ".join(file.location for file in spec.local_files.values())


def _predict_batches(run: Run, batches: Sequence[NDArray[Any]], spec: ModelSpec) -> NDArray[np.float32]:
    """Run trial images, (n, outputs): the shapes in the file do not show that each image gets an output of its own."""
    answers = [_predict_batch(run, images, spec) for images in batches]
    widths = sorted({answer.shape[1] for answer in answers})
    if len(widths) > 1:
        found = f"{' or '.join(map(str, widths))} values for an image"
    elif answers[0].dtype != np.float32:
        found = f"{answers[0].dtype} values"
    else:
        return np.concatenate(answers)
    raise ConfigurationError(
        f"{spec.name}: the model in {named_files(spec)} must return one probability for each class;"
        f" for trial images it returned {found}"
    )


def _predict_batch(run: Run, images: NDArray[Any], spec: ModelSpec) -> NDArray[Any]:
    with invalid_model_on_error(spec):
        outputs = run(images)
    shapes = [output.shape for output in outputs]
    if len(shapes) != 1 or len(shapes[0]) not in {1, 2} or shapes[0][0] != len(images) or 0 in shapes[0]:
        raise ConfigurationError(
            f"{spec.name}: the model in {named_files(spec)} must have one output of shape (n, classes); for {len(images)}"
            f" images it returned {' and '.join(map(str, shapes)) or 'none'}"
        )
    return outputs[0].reshape(len(images), -1)
