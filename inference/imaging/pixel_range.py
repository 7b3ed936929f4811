"""Check that an array of floats holds pixel values, and not scaled or shifted ones.

Floats are rounded and clipped, so a scaled or normalised picture would pass as a black or white one and get a wrong class
without a warning. A resized picture may exceed the range 0 to 255 at its edges. With the kernels in use (bicubic, Lanczos)
it goes down to -0.36 times its largest value, and up to 1.58 times 255; the sum of its values below 0 is at most a third
of the sum of those above 0, and a tenth for text on black. A picture minus its mean has the same sum on both sides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.errors import InvalidImage

MAX_PIXEL_VALUE = 255

#: maximum distance from a whole number at which a value still counts as whole
_ROUNDING = 0.01
#: maximum value of white after scaling: 2.8 with the usual means and deviations, 4.4 with a deviation only, 5.5 with a
#: logarithm
_MAX_SCALED = 6.0
#: no scaled picture is as dark as this; a wrong byte order gives such values, or whole numbers that are read as floats
_MIN_SCALED = 1e-6
#: maximum distance of a resized picture's values below 0, relative to its largest value, and above 255, relative to 255
_MAX_UNDERSHOOT = 0.4
_MAX_OVERSHOOT = 0.6
#: maximum sum of the distances below 0, relative to the sum of the values above 0; and of those above 255, relative to it
_MAX_SUM_BELOW = 1 / 3
_MAX_SUM_ABOVE = 1 / 16

_COLOURS = 3


def check_pixel_floats(values: NDArray[Any]) -> None:
    """Check an (H, W, C) array of finite floats; colours and alpha are checked separately.

    Raises:
        InvalidImage: the values are not pixels from 0 to 255.
    """
    _check_range(values[..., :_COLOURS], "pixels")
    if values.shape[-1] > _COLOURS:
        _check_range(values[..., _COLOURS:], "alpha values")


def _check_range(values: NDArray[Any], name: str) -> None:
    low, high = float(values.min()), float(values.max())
    if low >= 0 and _MAX_SCALED < high <= MAX_PIXEL_VALUE:
        return
    if low == high == 0:
        # black at any scale
        return
    if low >= 0 and 1 / MAX_PIXEL_VALUE < high <= 1:
        raise InvalidImage(f"the {name} are between 0 and 1", field="image", expected=f"{name} from 0 to 255: multiply by 255")
    if not (_is_dark_picture(values, low, high) if high <= _MAX_SCALED else _is_resized_picture(values, low, high)):
        raise InvalidImage(
            f"the values are not {name} from 0 to 255: they range from {low:.6g} to {high:.6g}",
            field="image",
            expected=f"{name} from 0 to 255: {_remedy(low, high)}",
        )


def _is_dark_picture(values: NDArray[Any], low: float, high: float) -> bool:
    """Whether values in the range of scaled ones are the whole numbers of a dark picture."""
    return low >= -_ROUNDING and high > 1 + _ROUNDING and float(np.abs(values - np.rint(values)).max()) <= _ROUNDING


def _is_resized_picture(values: NDArray[Any], low: float, high: float) -> bool:
    if -low > _MAX_UNDERSHOOT * high or high > MAX_PIXEL_VALUE * (1 + _MAX_OVERSHOOT):
        return False
    # float16 ends at 65504
    below = -float(np.minimum(values, 0).sum(dtype=np.float64))
    above = float(np.maximum(values, MAX_PIXEL_VALUE).sum(dtype=np.float64)) - MAX_PIXEL_VALUE * values.size
    positive = float(values.sum(dtype=np.float64)) + below
    return below <= _MAX_SUM_BELOW * positive and above <= _MAX_SUM_ABOVE * positive


def _remedy(low: float, high: float) -> str:
    if max(-low, high) < _MIN_SCALED:
        return "check the dtype and its byte order, e.g. >f4 or <f4"
    if low < 0:
        return "undo the scaling or the subtraction of a mean, e.g. (x + 1) * 127.5 for values from -1 to 1"
    if high <= _MAX_SCALED:
        return "undo the scaling or the normalisation, e.g. x * 255 for values from 0 to 1"
    return "scale values of more than 8 bits, e.g. by 255 / 65535 for 16 bits"
