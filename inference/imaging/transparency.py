"""Transparent parts laid on white: alpha, and the one transparent colour that a PNG without alpha may name (tRNS).

Pillow knows the samples of 16-bit colour by their high byte and those of 2 and 4 bits by their brightness, while the
file names the sample (ISO/IEC 15948, 11.3.2.1): so the comparison is made here.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile

_WHITE = (255, 255, 255)
_RGB_16, _GREY_16 = "RGB;16B", "I;16B"
#: the low bytes of 16-bit colour: what would be the high ones were they in the other order
_RGB_16_LOW = "RGB;16L"
#: largest sample by Pillow's raw mode, of pictures whose transparency is one colour
_LARGEST_SAMPLE = {"1": 1, "L;2": 3, "L;4": 15, "L": 255, _GREY_16: 0xFFFF, "RGB": 255, _RGB_16: 0xFFFF}


def load_with_colour_on_white(picture: ImageFile, encoded: bytes) -> Image.Image:
    """Load the pixels at 8 bits, with the transparent colour of a PNG, if it has one, as white; alpha stays.

    Args:
        picture: opened from `encoded`, not yet loaded.
        encoded: its file, which is decoded a second time for a transparent colour of 16 bits.
    """
    raw_mode = picture.tile[0].args if isinstance(picture, PngImageFile) else None
    picture.load()
    if not isinstance(raw_mode, str) or raw_mode not in _LARGEST_SAMPLE:
        return picture
    colour = picture.info.get("transparency")
    if colour is None and raw_mode != _GREY_16:
        return picture
    samples: NDArray[Any] = np.asarray(picture.convert("L") if raw_mode == "1" else picture)
    # Pillow's own conversion has clipped in some versions; its 16-bit colour takes the high byte, as this does
    shown = (samples >> 8).astype(np.uint8) if raw_mode == _GREY_16 else samples.copy()
    if colour is not None:
        shown[_are_of(colour, samples, raw_mode, encoded)] = 255
    return Image.fromarray(shown)


def on_white(picture: Image.Image) -> Image.Image:
    """Lay a picture with alpha on white, as RGB."""
    layer = picture.convert("RGBA")
    canvas = Image.new("RGB", layer.size, _WHITE)
    canvas.paste(layer, (0, 0), layer)
    return canvas


def _are_of(colour: int | tuple[int, ...], samples: NDArray[Any], raw_mode: str, encoded: bytes) -> NDArray[np.bool_]:
    """Find the pixels of that colour, (H, W); of samples with fewer bits than 16 the low bits of it count."""
    largest = _LARGEST_SAMPLE[raw_mode]
    wanted = np.array(colour) & largest
    if raw_mode == _RGB_16:
        same = (samples == wanted >> 8) & (_low_bytes(encoded) == wanted & 255)
    else:
        # Pillow has spread samples of few bits over 0 to 255, and of one bit it has made 0 or 255 of the colour too
        same = samples == wanted * max(1, 255 // largest)
    whole: NDArray[np.bool_] = same if same.ndim == 2 else same.all(-1)  # noqa: PLR2004 - (H, W), or with channels
    return whole


def _low_bytes(encoded: bytes) -> NDArray[np.uint8]:
    picture = PngImageFile(io.BytesIO(encoded))
    picture.tile = [tile._replace(args=_RGB_16_LOW) for tile in picture.tile]
    picture.load()
    return np.asarray(picture)
