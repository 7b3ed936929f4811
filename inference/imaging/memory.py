"""Peak memory of decoding one image, estimated from the header before any pixel is decoded.

The factors were measured with Pillow 13 (resident memory, 16 megapixels of each format and mode) and rounded up. Pillow stores
one byte per pixel for greys and palettes, two for 16-bit greys, and four for everything else, RGB included; the copies
of all conversions exist at the same time.
"""

from __future__ import annotations

import math

from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.WebPImagePlugin import WebPImageFile

from inference.imaging.arrays import ArrayLayout
from inference.imaging.jpeg import MAX_CHECK_BYTES
from inference.imaging.picture_file import PictureFile
from inference.models.spec import InputSpec, RawArrays

_COLOUR_BYTES = 4
_STORED_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2}
#: modes in which transparency, if there is any, is one colour of a PNG
_ONE_COLOUR_MODES = {"1", "L", "I;16", "RGB"}
#: bytes per pixel: two canvases of libwebp's decoder, and its result
_WEBP_BYTES = 12
#: bytes of one coefficient of a progressive JPEG; libjpeg keeps all of them in memory
_COEFFICIENT_BYTES = 2
#: bytes per pixel that resizing and NumPy need in addition to the picture
_SPARE_BYTES = 1
#: copies of an array of floats: one clipped, one rounded
_FLOAT_COPIES = 2
#: bytes per pixel of an array: Pillow's picture, the picture without alpha, and the bytes in between
_ARRAY_PIXEL_BYTES = 12


def picture_bytes(picture: ImageFile, file: PictureFile, spec: InputSpec, *, is_turned: bool) -> int:
    """Estimate the memory in bytes that decoding a picture for `spec` needs, its file included.

    Args:
        picture: opened and not loaded; a JPEG has the reduced size at which it is decoded.
        file: its file.
        spec: the input of the model.
        is_turned: whether its orientation needs another copy.
    """
    per_pixel = _pixel_bytes(picture, spec, is_turned=is_turned)
    if isinstance(picture, WebPImageFile):
        per_pixel += _WEBP_BYTES
    needed = picture.width * picture.height * per_pixel + 2 * len(file.encoded)
    if isinstance(picture, JpegImageFile):
        needed += min(MAX_CHECK_BYTES, math.prod(file.size) * _COLOUR_BYTES)
        if picture.info.get("progressive"):
            needed += int(math.prod(file.size) * _samples_of_a_pixel(picture) * _COEFFICIENT_BYTES)
    return needed


def array_bytes(layout: ArrayLayout, spec: InputSpec) -> int:
    """Estimate the memory in bytes that converting an array to `spec`'s input needs, the array included."""
    height, width, channels = layout.shape
    own = height * width * channels * layout.dtype.itemsize
    if spec.raw is RawArrays.MODEL_READY:
        return 2 * own
    copies = _FLOAT_COPIES if layout.dtype.kind == "f" else 0
    return own * (1 + copies) + height * width * (channels + _ARRAY_PIXEL_BYTES)


def _pixel_bytes(picture: ImageFile, spec: InputSpec, *, is_turned: bool) -> int:
    mode, channels = picture.mode, spec.shape[-1]
    stored = _STORED_BYTES.get(mode, _COLOUR_BYTES)
    shown = _COLOUR_BYTES if stored == _COLOUR_BYTES else 1
    needed = stored + _SPARE_BYTES + is_turned * shown
    has_one_colour = mode in _ONE_COLOUR_MODES and "transparency" in picture.info
    if has_one_colour or mode == "I;16":
        needed += 2 * stored
    if picture.has_transparency_data and not has_one_colour:
        needed += _COLOUR_BYTES + (_COLOUR_BYTES if mode != "RGBA" else 0)
        mode = "RGB"
    if channels == 1:
        return needed + (mode != "L")
    return needed + (_COLOUR_BYTES if mode != "RGB" else 0)


def _samples_of_a_pixel(picture: JpegImageFile) -> float:
    """Compute the samples of all components per sample of the finest one: 3 for 4:4:4, 1.5 for 4:2:0."""
    areas = [across * down for _, across, down, _ in picture.layer]
    return sum(areas) / max(*areas, 1)
