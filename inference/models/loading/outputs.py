"""Check of a model's outputs for trial images: probabilities, or the probability of one of two classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.errors import ConfigurationError
from inference.models.probabilities import TOLERANCE, are_probabilities, described
from inference.models.spec import InputSpec

_REMEDY = "end it with a softmax over its classes, such as keras.layers.Softmax()"
_BINARY_REMEDY = 'end it with Dense(1, activation="sigmoid"), or with Dense(2, activation="softmax")'
_NOT_FINITE = "returns no finite values for any trial image; its weights may be damaged"


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
    plain = np.stack([np.zeros(spec.shape, np.uint8), np.full(spec.shape, 255, np.uint8)]).astype(spec.numpy_dtype)
    noise = np.random.default_rng(0).integers(0, 256, (3, *spec.shape), np.uint8).astype(spec.numpy_dtype)
    if np.issubdtype(spec.numpy_dtype, np.floating):
        noise[1] /= 255
        noise[2] = noise[2] / 127.5 - 1
    return plain, noise


def check_probabilities(rows: NDArray[np.float32], find_bounds: Callable[[], Bounds]) -> None:
    """Check a model's outputs for the trial images, (n, classes).

    Rows with values that are not finite are ignored: a good model may overflow on images outside its own range.

    Args:
        find_bounds: finds the bounds of the outputs for any image, for the error message about the last operation.

    Raises:
        ConfigurationError: the rows are not probabilities; the message says what was found, and how to correct it.
    """
    finite = rows[np.isfinite(rows).all(axis=1)]
    if not len(finite):
        raise ConfigurationError(_NOT_FINITE)
    wrong = finite[~are_probabilities(finite)]
    if not len(wrong):
        return
    are_sigmoids = find_bounds().sources == {"Sigmoid"}
    also = " (independent sigmoids, one for each label, are not supported)" if are_sigmoids else ""
    raise ConfigurationError(
        "must return probabilities from 0 to 1 that sum to 1; for a trial image it returned"
        f" {described(wrong[0])}{also}: {_REMEDY}"
    )


def check_probability(values: NDArray[np.float32], find_bounds: Callable[[], Bounds]) -> None:
    """Check the outputs of a model with one output unit for the trial images, (n, 1); see `check_probabilities`.

    A few values do not distinguish a logit from a probability, but the bounds of the operation that computes them do.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ConfigurationError(_NOT_FINITE)
    least, most, bounds = finite.min(), finite.max(), find_bounds()
    problem = ""
    if min(least, bounds.low) < -TOLERANCE or max(most, bounds.high) > 1 + TOLERANCE:
        others = f"from {bounds.low:.4g} to {bounds.high:.4g}" if bounds.are_known else "of any size"
        operations = " and ".join(sorted(bounds.sources)) or "no operation on the image"
        problem = (
            f"returned values from {least:.4g} to {most:.4g}, computed by {operations}, and for other images they may be {others}"
        )
    elif least == most == 1 and "Softmax" in bounds.sources:
        problem = "returned 1 for each of them, as a softmax over one unit does"
    if problem:
        raise ConfigurationError(
            f"has one output unit, which must be a probability, from 0 to 1; for trial images it {problem}: {_BINARY_REMEDY}"
        )
