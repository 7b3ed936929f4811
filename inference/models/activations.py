"""Activations that `output.activation` of a description adds behind a model's graph: the same for every runtime."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference.models.spec import Activation


def activate(outputs: NDArray[np.float32], activation: Activation | None) -> NDArray[np.float32]:
    """Apply an activation to logits, (n, outputs) float32; None and `none` return them as they are.

    Values that are not finite give values that are not finite, without a warning; the check of the answers finds them.
    """
    if activation is Activation.SOFTMAX:
        with np.errstate(invalid="ignore"):
            shifted: NDArray[np.float32] = outputs - outputs.max(axis=1, keepdims=True)  # no exponential overflows
            np.exp(shifted, out=shifted)
            shifted /= shifted.sum(axis=1, keepdims=True)
        return shifted
    if activation is Activation.SIGMOID:
        with np.errstate(over="ignore"):  # of a very negative logit: the result is 0, as it should be
            probabilities: NDArray[np.float32] = np.exp(-outputs)
        probabilities += 1
        return np.reciprocal(probabilities, out=probabilities)
    return outputs
