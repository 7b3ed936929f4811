"""Check of a model's outputs for trial images: probabilities, or the probability of one of two classes or of each label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.errors import ConfigurationError
from inference.models.probabilities import TOLERANCE, are_probabilities, described
from inference.models.spec import Activation, InputSpec, ModelSpec, Task

_KEY = "output.activation"
#: Values of the key, for models that return something else than probabilities.
_VALUES = "softmax (logits of classes), sigmoid (with task: multi_label, logits of labels) or none (values to answer as they are)"
_REMEDY = f"set {_KEY} to {_VALUES}, or end it with a softmax over its classes, such as keras.layers.Softmax()"
_BINARY_REMEDY = (
    f"set {_KEY} to sigmoid if it is a logit, or to none to answer the value as it is;"
    ' or end it with Dense(1, activation="sigmoid"), or with Dense(2, activation="softmax")'
)


@dataclass(frozen=True)
class Bounds:
    """The smallest and the largest possible value; infinite if unknown.

    Args:
        sources: types of the operations that determine the bounds, or of the operation with unknown bounds.
    """

    low: float
    high: float
    sources: frozenset[str]

    @property
    def are_known(self) -> bool:
        return isfinite(self.low) and isfinite(self.high)


def trial_batches(spec: InputSpec) -> tuple[NDArray[Any], NDArray[Any]]:
    """Create two batches of different sizes: black and white, and three of noise (floats: 0 to 255, 0 to 1 and -1 to 1)."""
    plain = np.stack([np.zeros(spec.array_shape, np.uint8), np.full(spec.array_shape, 255, np.uint8)]).astype(spec.numpy_dtype)
    noise = np.random.default_rng(0).integers(0, 256, (3, *spec.array_shape), np.uint8).astype(spec.numpy_dtype)
    if np.issubdtype(spec.numpy_dtype, np.floating):
        noise[1] /= 255
        noise[2] = noise[2] / 127.5 - 1
    return plain, noise


def check_outputs(outputs: NDArray[np.float32], spec: ModelSpec, find_bounds: Callable[[], Bounds], step: float) -> None:
    """Check a model's outputs for the trial images, before its activation: they must fit the description.

    Rows with values that are not finite are ignored: a good model may overflow on images outside its own range.

    Args:
        outputs: (n, outputs).
        find_bounds: finds the bounds of the outputs for any image, if those for a few images do not suffice.
        step: difference between two values of a quantised output, else 0.

    Raises:
        ConfigurationError: the outputs are something else; the message has the finding, and the correction.
    """
    finite = outputs[np.isfinite(outputs).all(axis=1)]
    if not len(finite):
        raise ConfigurationError("returns no finite values for any trial image; its weights may be damaged")
    if spec.output.activation is Activation.NONE:
        return
    if spec.output.activation is not None:
        _check_logits(finite, spec.output.activation, spec.task, find_bounds)
    elif spec.task is Task.MULTI_LABEL:
        _check_each_probability(finite, find_bounds)
    elif finite.shape[1] == 1:
        _check_probability(finite, find_bounds)
    else:
        _check_probabilities(finite, find_bounds, step)


def _check_logits(outputs: NDArray[np.float32], activation: Activation, task: Task, find_bounds: Callable[[], Bounds]) -> None:
    """Check that the activation fits the number of outputs, and that the model has not applied one itself."""
    units = outputs.shape[1]
    if activation is Activation.SOFTMAX and units == 1:
        raise _wrong_activation("has one output unit, of which a softmax is always 1: set output.activation to sigmoid or none")
    if activation is Activation.SIGMOID and units > 1 and task is Task.SINGLE_LABEL:
        raise _wrong_activation(
            f"has {units} output units, and their sigmoids do not sum to 1: set output.activation to softmax if an image has"
            " one class, or add task: multi_label if it may have several labels"
        )
    bounds = find_bounds()
    if (units > 1 and are_probabilities(outputs).all()) or (bounds.are_known and bounds.low >= 0 and bounds.high <= 1):
        raise _wrong_activation(
            f"returns probabilities already, and output.activation {activation} would be a second activation: leave the key out"
        )


def _wrong_activation(detail: str) -> ConfigurationError:
    return ConfigurationError(detail, field=_KEY)


def _check_probabilities(rows: NDArray[np.float32], find_bounds: Callable[[], Bounds], step: float) -> None:
    wrong = rows[~are_probabilities(rows, step)]
    if not len(wrong):
        return
    are_sigmoids = find_bounds().sources == {"Sigmoid"}
    also = "; they are independent sigmoids: add task: multi_label if each is the probability of a label" if are_sigmoids else ""
    raise _wrong_activation(
        "must return probabilities from 0 to 1 that sum to 1; for a trial image it returned"
        f" {described(wrong[0])}{also}: {_REMEDY}"
    )


def _check_each_probability(rows: NDArray[np.float32], find_bounds: Callable[[], Bounds]) -> None:
    problem = _range_problem(rows, find_bounds())
    if problem:
        raise _wrong_activation(
            f"must return a probability from 0 to 1 for each label; for trial images it {problem}:"
            f" set {_KEY} to sigmoid if they are logits, or to none to answer the values as they are"
        )


def _check_probability(values: NDArray[np.float32], find_bounds: Callable[[], Bounds]) -> None:
    """Check the outputs of a model with one output unit, (n, 1).

    A few values do not distinguish a logit from a probability, but the bounds of the operation that computes them do.
    """
    bounds = find_bounds()
    problem = _range_problem(values, bounds)
    if not problem and values.min() == values.max() == 1 and "Softmax" in bounds.sources:
        problem = "returned 1 for each of them, as a softmax over one unit does"
    if problem:
        raise _wrong_activation(
            f"has one output unit, which must be a probability, from 0 to 1; for trial images it {problem}: {_BINARY_REMEDY}"
        )


def _range_problem(values: NDArray[np.float32], bounds: Bounds) -> str:
    """Say that values are, or may be for other images, outside 0 to 1, as the end of "for trial images it …"; else empty."""
    least, most = values.min(), values.max()
    if min(least, bounds.low) >= -TOLERANCE and max(most, bounds.high) <= 1 + TOLERANCE:
        return ""
    others = f"from {bounds.low:.4g} to {bounds.high:.4g}" if bounds.are_known else "of any size"
    operations = " and ".join(sorted(bounds.sources)) or "no operation on the image"
    return f"returned values from {least:.4g} to {most:.4g}, computed by {operations}, and for other images they may be {others}"
