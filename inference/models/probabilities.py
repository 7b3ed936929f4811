"""Probabilities, the only answers that have a most likely class and a confidence: what is served, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Rounding that is allowed in a value and in the sum of a row. A softmax that is computed in bfloat16 sums to 1 within 0.005,
#: for 2 classes as for 21,000.
TOLERANCE = 0.02


def are_probabilities(rows: NDArray[Any]) -> NDArray[np.bool_]:
    """Check rows of (n, classes), float32: (n,) whether each has finite values from 0 to 1 that sum to 1, within `TOLERANCE`."""
    with np.errstate(invalid="ignore"):  # whatever is NaN compares as False
        good: NDArray[np.bool_] = np.abs(rows.sum(axis=1) - 1) <= TOLERANCE
        good &= (rows.min(axis=1) >= -TOLERANCE) & (rows.max(axis=1) <= 1 + TOLERANCE)
    return good


def described(row: NDArray[Any]) -> str:
    """Say what is in `row`, (classes,), where it is no probabilities."""
    if not np.isfinite(row).all():
        return "values that are not finite"
    return f"values from {row.min():.4g} to {row.max():.4g} that sum to {row.sum():.4g}"
