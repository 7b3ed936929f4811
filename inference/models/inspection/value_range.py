"""Range of the values that pixels become in the first operations of a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inference.models.inspection.facts import InputScaling

_MAX_PIXEL = 255.0


class PixelRange:
    """Range of each channel, at first 0 to 255, and the arithmetic that changed it."""

    def __init__(self) -> None:
        self._ends: NDArray[np.float64] = np.array([[0.0], [_MAX_PIXEL]])
        self._origins: list[str] = []
        self._is_known = True

    def apply(self, function: Callable[[Any, Any], Any], operand: ArrayLike, origin: str, *, is_first: bool = False) -> None:
        """Apply an operation of two operands, such as `np.multiply`, to all pixels.

        Args:
            operand: the constant operand: one number, or one for each channel in the last dimension.
            origin: the name of the operation or layer, for people.
            is_first: whether the constant is the first operand.

        Raises:
            ValueError: the operand is not finite numbers of the channels.
        """
        values = np.asarray(operand, np.float64)
        values = values.reshape(-1) if values.size == (values.shape[-1] if values.ndim else 1) else values
        if values.ndim > 1 or not values.size:
            raise ValueError("the operand has other dimensions than channels")
        with np.errstate(all="ignore"):
            ends = function(values, self._ends) if is_first else function(self._ends, values)
        if not np.isfinite(ends).all():
            raise ValueError("the operand has no finite result")
        self._ends = ends
        self._origins.append(origin)

    def apply_unknown(self, origin: str) -> None:
        """Apply a scaling whose numbers are not known."""
        self._is_known = False
        self._origins.append(origin)

    def found(self) -> InputScaling | None:
        """Return the scaling that was applied; None if there was none."""
        if not self._origins:
            return None
        origin = " and ".join(dict.fromkeys(self._origins))
        if not self._is_known:
            return InputScaling(origin, None, None)
        return InputScaling(origin, float(self._ends.min()), float(self._ends.max()))
