"""Batches of any size for a graph that takes batches of one size only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def for_any_size(function: Callable[[NDArray[Any]], NDArray[Any]], size: int | None) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return a function for batches of any size by one for batches of `size`; None is any size."""
    return function if size is None else FixedBatches(function, size)


class FixedBatches:
    """Function for any number of images, by a function for exactly `size`: calls it repeatedly, the last time padded with zeros.

    Args:
        function: takes (size, …), returns (size, …).
        size: number of images of each call.
    """

    def __init__(self, function: Callable[[NDArray[Any]], NDArray[Any]], size: int) -> None:
        self._function = function
        self._size = size

    def __call__(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Run `batch`, (n, …), and return (n, …). Raises ValueError if the function returns another number of rows."""
        missing = -len(batch) % self._size
        padded = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), batch.dtype)]) if missing else batch
        answers = [self._run(padded[begin : begin + self._size]) for begin in range(0, len(padded), self._size)]
        return (answers[0] if len(answers) == 1 else np.concatenate(answers))[: len(batch)]

    def _run(self, images: NDArray[Any]) -> NDArray[Any]:
        answers = self._function(images)
        if answers.ndim == 0 or len(answers) != self._size:
            raise ValueError(f"the graph returned an output of shape {answers.shape} for its batch of {self._size}")
        return answers
