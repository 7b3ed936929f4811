"""Conversion of a model's values for one image to the result of its task: class, labels over their thresholds, top classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import orjson
from numpy.typing import NDArray

from inference.domain import NamedClass, PredictionResult
from inference.models.probabilities import are_finite, are_independent_probabilities, are_probabilities
from inference.models.spec import Activation, ModelSpec, Task

#: Threshold of a label for which the description has none.
DEFAULT_THRESHOLD = 0.5


class AnswerBuilder:
    """Makes results of the values that one model returns."""

    def __init__(self, spec: ModelSpec) -> None:
        self._labels = spec.labels
        self._top_k = spec.top_k
        self._is_multi_label = spec.task is Task.MULTI_LABEL
        self._threshold = spec.threshold
        self._has_any_values = spec.output.activation is Activation.NONE

    def are_good(self, rows: NDArray[np.float32], step: float = 0.0) -> NDArray[np.bool_]:
        """Check which rows of (n, classes) are values as the description says; returns (n,).

        Args:
            step: difference between two values if they are quantised, else 0.
        """
        if self._has_any_values:
            return are_finite(rows)
        return are_independent_probabilities(rows) if self._is_multi_label else are_probabilities(rows, step)

    def build(self, vector: NDArray[np.float32], top_k: int | None = None, custom: bytes | None = None) -> PredictionResult:
        """Make a result of one row.

        Args:
            vector: (classes,) float32, finite.
            top_k: the number of classes in `top`, at most all; None: the description's `top_k`.
            custom: the return value of the model's code, as JSON text.
        """
        result = PredictionResult.from_vector(vector, self._labels)
        result.threshold = self._described_threshold(result.class_index)
        count = top_k or self._top_k
        if count is not None:
            result.top = self._named(_falling(vector)[:count])
        if custom is not None:
            result.custom = orjson.loads(custom)
        if self._is_multi_label:
            result.labels = self._named([index for index in _falling(vector) if vector[index] >= self._threshold_of(index)])
        return result

    def _named(self, indices: Sequence[int]) -> tuple[NamedClass, ...]:
        return tuple((index, self._label(index)) for index in indices)

    def _label(self, index: int) -> str | None:
        return self._labels[index] if index < len(self._labels) else None

    def _threshold_of(self, index: int) -> np.float32:
        described = self._described_threshold(index)
        return np.float32(DEFAULT_THRESHOLD if described is None else described)

    def _described_threshold(self, index: int) -> float | None:
        """Find the threshold of a class; None if the description has none."""
        if isinstance(self._threshold, tuple):
            return self._threshold[index]
        if isinstance(self._threshold, dict):
            return self._threshold.get(self._label(index) or "", DEFAULT_THRESHOLD)
        return self._threshold


def _falling(vector: NDArray[np.float32]) -> list[int]:
    """List the classes by falling value; equal values stay in class order, so that the first is the result's class."""
    indices: list[int] = np.argsort(-vector, kind="stable").tolist()
    return indices
