"""Check of a model's values: probabilities of classes or of independent labels; others have no confidence and are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Allowed rounding error of a value and of the sum of a row. The sum of a softmax in bfloat16 is 1 within 0.005, for 2 and
#: for 21,000 classes.
TOLERANCE = 0.02


def are_probabilities(rows: NDArray[Any], step: float = 0.0) -> NDArray[np.bool_]:
    """Check which rows of (n, classes), float32, have finite values from 0 to 1 with sum 1, within `TOLERANCE`; returns (n,).

    Args:
        step: difference between two values of a quantised output: each value is off by half of it, and their sum by all of these.
    """
    with np.errstate(invalid="ignore"):  # comparisons with NaN are False
        good: NDArray[np.bool_] = np.abs(rows.sum(axis=1) - 1) <= TOLERANCE + rows.shape[1] * step / 2
        good &= (rows.min(axis=1) >= -TOLERANCE) & (rows.max(axis=1) <= 1 + TOLERANCE)
    return good


def are_independent_probabilities(rows: NDArray[Any]) -> NDArray[np.bool_]:
    """Check which rows of (n, labels), float32, have finite values from 0 to 1, within `TOLERANCE`; returns (n,)."""
    with np.errstate(invalid="ignore"):
        good: NDArray[np.bool_] = (rows.min(axis=1) >= -TOLERANCE) & (rows.max(axis=1) <= 1 + TOLERANCE)
    return good


def are_finite(rows: NDArray[Any]) -> NDArray[np.bool_]:
    """Check which rows of (n, values), float32, have finite values; returns (n,)."""
    good: NDArray[np.bool_] = np.isfinite(rows).all(axis=1)
    return good


def described(row: NDArray[Any]) -> str:
    """Describe the values of `row`, (classes,), for the error that they are not probabilities."""
    if not np.isfinite(row).all():
        return "values that are not finite"
    return f"values from {row.min():.4g} to {row.max():.4g} that sum to {row.sum():.4g}"
