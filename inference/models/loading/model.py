"""A loaded model, of any library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inference.models.activations import activate
from inference.models.spec import Activation, ModelSpec

TENSORFLOW, LITE = "TensorFlow", "LiteRT"


class LoadedModel:
    """Model that classifies batches of any size.

    Args:
        function: takes (n, *array_shape) in the description's dtype, returns the model's outputs: float32, (n, classes), or
            (n, 1) or (n,) of a model with one output unit.
        output_size: number of classes.
        runtime: name of the library that runs the model, such as TENSORFLOW or LITE.
        activation: the description's `output.activation`, applied to the outputs.
        is_binary: whether the model has one output unit, the probability of the second of two classes.
        output_step: difference between two values of a quantised output.
        reason: why this library runs it, for log lines.
        keep: an object that must live as long as `function`: TensorFlow's compiled graph does not keep its weights alive.
    """

    def __init__(
        self,
        function: Callable[[NDArray[Any]], ArrayLike],
        output_size: int,
        runtime: str,
        *,
        activation: Activation | None,
        is_binary: bool = False,
        output_step: float = 0.0,
        reason: str = "",
        keep: object = None,
    ) -> None:
        self._function = function
        self._keep = keep
        self._activation = activation
        self._is_binary = is_binary
        self.output_size = output_size
        self.output_step = output_step
        self.runtime = runtime
        self.reason = reason

    def predict(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Classify `batch`, (n, *array_shape) in the description's dtype, as (n, output_size) float32.

        The first call with a new n is slower than later ones: see `warm_up`.
        """
        outputs = np.asarray(self._function(batch)).reshape(len(batch), -1)
        return finish(outputs, self._activation, is_binary=self._is_binary)


def finish(outputs: NDArray[np.float32], activation: Activation | None, *, is_binary: bool) -> NDArray[np.float32]:
    """Convert a graph's outputs, (n, outputs), to the values of the answers, (n, classes).

    Args:
        is_binary: the one output unit's class is the second of two; the first is its complement.
    """
    values = activate(outputs, activation)
    return np.concatenate([1 - values, values], axis=1) if is_binary else values


def warm_up(model: LoadedModel, spec: ModelSpec, batch_sizes: Sequence[int]) -> None:
    """Predict black images once at each of `batch_sizes`, so that no caller waits for a slow first call."""
    for size in batch_sizes:
        model.predict(np.zeros((size, *spec.input.array_shape), spec.input.numpy_dtype))
