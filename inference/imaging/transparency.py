"""Transparent parts laid on white: alpha, and the one transparent colour that a PNG without alpha may name (tRNS).

Pillow keeps only the high byte of 16-bit colour samples, and the brightness of samples of 2 and 4 bits, while the file
names the sample (ISO/IEC 15948, 11.3.2.1): so the comparison is made here.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile

_WHITE = (255, 255, 255)
_BAND_PIXELS = 2**18
_RGB_16, _GREY_16 = "RGB;16B", "I;16B"
#: Pillow's raw mode that reads the low bytes of 16-bit colour, as if the byte order were the other one
_RGB_16_LOW = "RGB;16L"
#: largest sample by Pillow's raw mode, for pictures in which transparency is one colour
_LARGEST_SAMPLE = {"1": 1, "L;2": 3, "L;4": 15, "L": 255, _GREY_16: 0xFFFF, "RGB": 255, _RGB_16: 0xFFFF}


def load_with_colour_on_white(picture: ImageFile, encoded: bytes) -> Image.Image:
    """Load the pixels at 8 bits, with the transparent colour of a PNG, if it has one, as white; alpha stays.

    Args:
        picture: opened from `encoded`, not yet loaded.
        encoded: its file, which is decoded a second time if the transparent colour has 16 bits.
    """
    raw_mode = picture.tile[0].args if isinstance(picture, PngImageFile) else None
    picture.load()
    if not isinstance(raw_mode, str) or raw_mode not in _LARGEST_SAMPLE:
        return picture
    colour = picture.info.get("transparency")
    if colour is None and raw_mode != _GREY_16:
        return picture
    low_bytes = _low_bytes(encoded) if colour is not None and raw_mode == _RGB_16 else None
    shown = Image.new("RGB" if raw_mode in {"RGB", _RGB_16} else "L", picture.size)
    for box in _bands(picture.size):
        samples: NDArray[Any] = np.asarray(_band(picture, box))
        # Pillow's own conversion clips in some versions; this takes the high byte, like Pillow's 16-bit colour
        band = (samples >> 8).astype(np.uint8) if raw_mode == _GREY_16 else samples.copy()
        if colour is not None:
            low = None if low_bytes is None else np.asarray(low_bytes.crop(box))
            band[_has_colour(colour, samples, raw_mode, low)] = 255
        shown.paste(Image.fromarray(band), box[:2])
    return shown


def on_white(picture: Image.Image) -> Image.Image:
    """Lay a picture with alpha on white, as RGB."""
    layer = picture if picture.mode == "RGBA" else picture.convert("RGBA")
    canvas = Image.new("RGB", layer.size, _WHITE)
    canvas.paste(layer, (0, 0), layer)
    return canvas


def _bands(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Cut a picture into boxes of its whole width, so that NumPy's copy of a box is small compared with the picture."""
    width, height = size
    rows = max(1, _BAND_PIXELS // width)
    return ((0, top, width, min(top + rows, height)) for top in range(0, height, rows))


def _band(picture: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    band = picture.crop(box)
    return band.convert("L") if band.mode == "1" else band


def _has_colour(
    colour: int | tuple[int, ...], samples: NDArray[Any], raw_mode: str, low_bytes: NDArray[Any] | None
) -> NDArray[np.bool_]:
    """Find the pixels of that colour, (H, W); if samples have fewer than 16 bits, only the low bits of the colour count."""
    largest = _LARGEST_SAMPLE[raw_mode]
    wanted = np.array(colour) & largest
    if low_bytes is not None:
        same = (samples == wanted >> 8) & (low_bytes == wanted & 255)
    else:
        # Pillow spreads samples of few bits over 0 to 255; with one bit it converts the colour to 0 or 255 too
        same = samples == wanted * max(1, 255 // largest)
    whole: NDArray[np.bool_] = same if same.ndim == 2 else same.all(-1)  # noqa: PLR2004 - (H, W), or with channels
    return whole


def _low_bytes(encoded: bytes) -> Image.Image:
    """Decode 16-bit colour again, by the low byte of each sample."""
    picture = PngImageFile(io.BytesIO(encoded))
    picture.tile = [tile._replace(args=_RGB_16_LOW) for tile in picture.tile]
    picture.load()
    return picture
