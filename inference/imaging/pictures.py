"""PNG, JPEG and WebP, and arrays of pixels: to the model's channels, height and width, as bytes.

Pillow's switches (LOAD_TRUNCATED_IMAGES, MAX_IMAGE_PIXELS, warning filters) are process-wide, so none is touched here:
the limits are checked before Pillow gets to its own.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from inference.errors import InferenceError, InvalidImage, PayloadTooLarge
from inference.imaging.arrays import Pixels
from inference.imaging.formats import ImageFormat, ImageLimits
from inference.imaging.headers import picture_size
from inference.models.spec import InputSpec, Interpolation, Resize

#: opened by class: Image.open loads its plugins on first use, and takes a camera's JPEG with previews for an MPO
_PLUGINS: dict[ImageFormat, type[ImageFile]] = {
    ImageFormat.PNG: PngImageFile,
    ImageFormat.JPEG: JpegImageFile,
    ImageFormat.WEBP: WebPImageFile,
}

_RESAMPLING = {
    Interpolation.NEAREST: Image.Resampling.NEAREST,
    Interpolation.BILINEAR: Image.Resampling.BILINEAR,
    Interpolation.BICUBIC: Image.Resampling.BICUBIC,
    Interpolation.LANCZOS: Image.Resampling.LANCZOS,
}

#: EXIF orientation to what puts the picture upright (CIPA DC-008, tag 0x0112)
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FIRST_ORIENTATION_ON_ITS_SIDE = 5

#: a JPEG is decoded at no less than this many times the target's width and height; at 1 the blur can be seen
_DRAFT_MARGIN = 2

_WHITE = (255, 255, 255)
_MAX_REASON_CHARACTERS = 120


def open_picture(data: bytes | memoryview, image_format: ImageFormat, limits: ImageLimits) -> ImageFile:
    """Read the header of a PNG, JPEG or WebP image; no pixel is decoded.

    Raises:
        InvalidImage: the header is broken.
        PayloadTooLarge: more pixels than `limits` allows.
    """
    limits.check(*picture_size(data, image_format))
    with _refusing(image_format):
        picture = _PLUGINS[image_format](io.BytesIO(data))
    limits.check(*picture.size)
    return picture


def read_picture(data: bytes | memoryview, image_format: ImageFormat, spec: InputSpec, limits: ImageLimits) -> Pixels:
    """Decode a PNG, JPEG or WebP image to the (H, W, C) bytes of the model's shape.

    Raises:
        InvalidImage: truncated or corrupt.
        PayloadTooLarge: more pixels than `limits` allows.
    """
    picture = open_picture(data, image_format, limits)
    with _refusing(image_format):
        if isinstance(picture, JpegImageFile):
            _decode_reduced(picture, spec)
        # before the EXIF data: reading those of a PNG loads it, and a second load after a failed one succeeds
        picture.load()
        method = _UPRIGHT.get(_orientation(picture))
        upright = picture if method is None else picture.transpose(method)
        flat = _to_channels(upright, spec.shape[-1])
    return _resized(flat, spec)


def fit_pixels(pixels: Pixels, spec: InputSpec) -> Pixels:
    """Convert (H, W, 1, 3 or 4) bytes to the model's channels, height and width."""
    height, width, _ = pixels.shape
    if pixels.shape == spec.shape and _kept_box(width, height, spec) == (0, 0, width, height):
        return pixels
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    return _resized(_to_channels(picture, spec.shape[-1]), spec)


@contextmanager
def _refusing(image_format: ImageFormat) -> Iterator[None]:
    try:
        yield
    except (InferenceError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise PayloadTooLarge(f"the {image_format.label} image has too many pixels", field="image") from error
    except Exception as error:
        # broken files make Pillow raise OSError, SyntaxError, ValueError, struct.error, OverflowError and others
        reason = " ".join(str(error).split())[:_MAX_REASON_CHARACTERS] or type(error).__name__
        raise InvalidImage(
            f"the {image_format.label} image does not decode: {reason}",
            field="image",
            expected=f"a whole {image_format.label} file",
        ) from error


def _decode_reduced(picture: JpegImageFile, spec: InputSpec) -> None:
    """Let the JPEG decoder leave out what resizing would throw away: its inverse DCT can halve, quarter or eighth."""
    if spec.interpolation is Interpolation.NEAREST:
        # nearest means one of the picture's own pixels
        return
    height, width, channels = spec.shape
    if _orientation(picture) >= _FIRST_ORIENTATION_ON_ITS_SIDE:
        height, width = width, height
    left, top, right, bottom = _kept_box(picture.width, picture.height, spec)
    least_width = math.ceil(picture.width * width * _DRAFT_MARGIN / (right - left))
    least_height = math.ceil(picture.height * height * _DRAFT_MARGIN / (bottom - top))
    picture.draft("L" if channels == 1 else None, (least_width, least_height))


def _orientation(picture: Image.Image) -> int:
    try:
        value = picture.getexif().get(Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - a camera's broken EXIF data do not make its picture unreadable
        return 1
    return value if isinstance(value, int) else 1


def _to_channels(picture: Image.Image, channels: int) -> Image.Image:
    if picture.mode.startswith("I"):
        picture = _from_16_bits(picture)
    elif picture.has_transparency_data:
        picture = _on_white(picture)
    mode = "L" if channels == 1 else "RGB"
    return picture if picture.mode == mode else picture.convert(mode)


def _from_16_bits(picture: Image.Image) -> Image.Image:
    # Pillow's own conversion has clipped in some versions; its 16-bit colour takes the high byte, as this does
    values: NDArray[Any] = np.asarray(picture)
    grey = (values >> 8).astype(np.uint8)
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def _on_white(picture: Image.Image) -> Image.Image:
    layer = picture.convert("RGBA")
    canvas = Image.new("RGB", layer.size, _WHITE)
    canvas.paste(layer, (0, 0), layer)
    return canvas


def _kept_box(width: int, height: int, spec: InputSpec) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is kept: whole pixels, so that a picture of the model's size stays as is."""
    if spec.resize is Resize.STRETCH:
        return 0, 0, width, height
    side = max(1, round(min(width, height) * spec.crop_fraction))
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _resized(picture: Image.Image, spec: InputSpec) -> Pixels:
    height, width, channels = spec.shape
    box = _kept_box(picture.width, picture.height, spec)
    resized = picture.resize((width, height), _RESAMPLING[spec.interpolation], box)
    return np.asarray(resized, np.uint8).reshape(height, width, channels)
