"""A model's answers to trial images: they must be probabilities, or one probability that a second class is made for."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf  # type: ignore[import-untyped]
from numpy.typing import NDArray

from inference.errors import ConfigurationError
from inference.models.loading.bounds import output_bounds
from inference.models.probabilities import TOLERANCE, are_probabilities, described
from inference.models.spec import InputSpec

_REMEDY = "end it with a softmax over its classes, such as keras.layers.Softmax()"
_BINARY_REMEDY = 'end it with Dense(1, activation="sigmoid"), or with Dense(2, activation="softmax")'
_NOT_FINITE = "gives no finite values for any trial image; its weights may be damaged"


def trial_batches(spec: InputSpec) -> tuple[NDArray[Any], NDArray[Any]]:
    """Make two batches of different sizes: black and white, and three of noise; of floats from 0 to 255, 0 to 1 and -1 to 1."""
    plain = np.stack([np.zeros(spec.shape, np.uint8), np.full(spec.shape, 255, np.uint8)]).astype(spec.numpy_dtype)
    noise = np.random.default_rng(0).integers(0, 256, (3, *spec.shape), np.uint8).astype(spec.numpy_dtype)
    if np.issubdtype(spec.numpy_dtype, np.floating):
        noise[1] /= 255
        noise[2] = noise[2] / 127.5 - 1
    return plain, noise


def check_probabilities(rows: NDArray[np.float32], graph: Any) -> None:
    """Check what a model gave for the trial images, (n, classes).

    Rows with values that are not finite say nothing: a good model may overflow on images outside its own range.

    Args:
        graph: the concrete function that gave them, for what is said about its end.

    Raises:
        ConfigurationError: the rows are no probabilities; says what was found, and how to mend it.
    """
    finite = rows[np.isfinite(rows).all(axis=1)]
    if not len(finite):
        raise ConfigurationError(_NOT_FINITE)
    wrong = finite[~are_probabilities(finite)]
    if not len(wrong):
        return
    are_sigmoids = output_bounds(graph).sources == {"Sigmoid"}
    also = " (independent sigmoids, one for each label, are not supported)" if are_sigmoids else ""
    raise ConfigurationError(
        f"must end in probabilities, from 0 to 1 and 1 in sum; for a trial image it gave {described(wrong[0])}{also}: {_REMEDY}"
    )


def check_probability(values: NDArray[np.float32], graph: Any) -> None:
    """Check what a model with one output unit gave for the trial images, (n, 1), as `check_probabilities` does.

    A few images do not tell a logit from a probability; what computes it does: see `output_bounds`.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ConfigurationError(_NOT_FINITE)
    least, most, bounds = finite.min(), finite.max(), output_bounds(graph)
    problem = ""
    if min(least, bounds.low) < -TOLERANCE or max(most, bounds.high) > 1 + TOLERANCE:
        others = f"from {bounds.low:.4g} to {bounds.high:.4g}" if bounds.are_known else "of any size"
        operations = " and ".join(sorted(bounds.sources)) or "no operation on the image"
        problem = (
            f"gave values from {least:.4g} to {most:.4g}, computed by {operations}, and for other images they may be {others}"
        )
    elif least == most == 1 and "Softmax" in bounds.sources:
        problem = "gave 1 for each of them, as a softmax over one unit does"
    if problem:
        raise ConfigurationError(
            f"has one output unit, which must be a probability, from 0 to 1; for trial images it {problem}: {_BINARY_REMEDY}"
        )


def both_classes(probability: tf.Tensor) -> tf.Tensor:
    """Make (n, 2) float32 of (n, 1): the unit's class is the second one, the first is its complement."""
    return tf.concat([1 - probability, probability], axis=1)
