"""Scaling of pixels, 0 to 255, to the values that a model was trained on: `input.scale`, `input.mean` and `input.std`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator

MAX_PIXEL = 255

#: Factor and summand of the named scales; `imagenet` has a mean and a deviation in addition.
_NAMED = {
    "none": (1.0, 0.0),
    "0..1": (1 / MAX_PIXEL, 0.0),
    "-1..1": (2 / MAX_PIXEL, -1.0),
    "imagenet": (1 / MAX_PIXEL, 0.0),
}
NO_SCALE, IMAGENET = "none", "imagenet"
#: Mean and deviation of ImageNet's red, green and blue after scaling to 0..1, as torchvision publishes them.
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_FRACTION = re.compile(r"([^/]+)(?:/([^/]+))?")
SCALES = "a number other than 0, a fraction such as 1/255, or one of -1..1, 0..1, imagenet and none"


def _parse_scale(value: object) -> str:
    """Return the name of a scale, or the number of a factor as text. Raises ValueError for any other value."""
    text = str(value).strip()
    if text in _NAMED and isinstance(value, str):
        return text
    match = None if isinstance(value, bool) else _FRACTION.fullmatch(text)
    try:
        factor = float(match[1]) / float(match[2] or 1) if match else 0.0
    except (ValueError, ZeroDivisionError):
        factor = 0.0
    if not factor or not math.isfinite(factor):
        raise ValueError(f"must be {SCALES}")
    return repr(factor)


def _parse_channel_values(value: object) -> object:
    """Make a tuple of a single number. Raises ValueError for anything but numbers: pydantic would read the text "1" as one."""
    values = value if isinstance(value, list | tuple) else [value]
    if not values or not all(isinstance(each, int | float) and not isinstance(each, bool) for each in values):
        raise ValueError("must be a number, or a list of one for each channel")
    return tuple(values)


#: Name of a scale, or the text of a factor: `float` reads it.
Scale = Annotated[str, BeforeValidator(_parse_scale)]
#: One value for all channels, or one for each.
ChannelValues = Annotated[tuple[float, ...], BeforeValidator(_parse_channel_values)]


@dataclass(frozen=True)
class PixelScaling:
    """Affine map of pixels for each channel: value = pixel * factor + summand.

    Args:
        factors: one for each channel, in the order of the channels that the graph takes.
        summands: the same.
    """

    factors: tuple[float, ...]
    summands: tuple[float, ...]

    @staticmethod
    def create(
        scale: str, mean: tuple[float, ...], std: tuple[float, ...], channels: int, *, is_bgr: bool
    ) -> PixelScaling | None:
        """Combine the keys of a description: value = (scaled pixel - mean) / std; None if the pixels stay as they are.

        Args:
            scale: a `Scale`.
            mean: of the scaled values: empty for 0, one number, or one for each channel in the order that the graph takes.
            std: the same for the deviation; empty for 1.
            channels: 1 or 3.
            is_bgr: whether the graph takes blue first: `imagenet` follows the colours.
        """
        factor, summand = _NAMED.get(scale) or (float(scale), 0.0)
        means, deviations = mean or (0.0,), std or (1.0,)
        if scale == IMAGENET:
            step = -1 if is_bgr else 1
            means, deviations = _IMAGENET_MEAN[::step], _IMAGENET_STD[::step]
        means, deviations = (values * channels if len(values) == 1 else values for values in (means, deviations))
        factors = tuple(factor / deviation for deviation in deviations)
        summands = tuple((summand - mean) / deviation for mean, deviation in zip(means, deviations, strict=True))
        is_identity = set(factors) == {1} and set(summands) == {0}
        return None if is_identity else PixelScaling(factors, summands)
