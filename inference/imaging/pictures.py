"""Conversion of PNG, JPEG and WebP files and arrays of pixels to the model's channels, height and width, as bytes.

Pillow's switches (LOAD_TRUNCATED_IMAGES, MAX_IMAGE_PIXELS, warning filters) are process-wide, so this module changes none:
it checks its limits before Pillow checks its own, and passes only data that concern the pixels. Pillow reads every chunk
in Python and allocates a WebP's canvas on opening, and a JPEG may repeat its scans: without the bounds of `png`, `jpeg`
and `webp`, 10 MB keep the API busy for seconds, and 125 KB a worker for 11 s at 16 megapixels.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image
from PIL.ExifTags import Base
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from inference.domain import ImageFormat
from inference.errors import InferenceError, InvalidImage, PayloadTooLarge
from inference.imaging import jpeg, png, webp
from inference.imaging.arrays import Pixels
from inference.imaging.formats import ImageLimits
from inference.imaging.memory import picture_bytes
from inference.imaging.picture_file import PictureFile, Size
from inference.imaging.transparency import load_with_colour_on_white, on_white
from inference.models.spec import InputSpec, Interpolation, Resize

#: opened by class: Image.open loads its plugins on first use, and treats a camera's JPEG with previews as an MPO
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

#: EXIF orientation (CIPA DC-008, tag 0x0112) to the operation that turns the picture upright
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

#: a JPEG is decoded at no less than this many times the target's width and height; at 1 the blur is visible
_DRAFT_MARGIN = 2

_MAX_REASON_CHARACTERS = 120


def check_header(data: bytes | memoryview, image_format: ImageFormat, limits: ImageLimits) -> Size:
    """Read width and height from the header of a PNG, JPEG or WebP image; no pixel is decoded.

    Raises:
        InvalidImage: the header is broken.
        PayloadTooLarge: the image has more pixels than `limits` allows.
    """
    return _open(_reduce_file(data, image_format, pixels=False), image_format, limits).size


def is_on_its_side(data: bytes | memoryview, image_format: ImageFormat, limits: ImageLimits) -> bool:
    """Whether the orientation swaps height and width; raises the errors of `check_header`."""
    picture = _open(_reduce_file(data, image_format, pixels=True), image_format, limits)
    return _orientation(picture) >= _FIRST_ORIENTATION_ON_ITS_SIDE


class OpenPicture:
    """A PNG, JPEG or WebP image with a header that was read, and pixels that were not decoded yet.

    Args:
        data: its file.
        image_format: the format of the file.
        spec: the input of the model that gets the picture.
        limits: the limits of this service.

    Raises:
        InvalidImage: the header is broken.
        PayloadTooLarge: the image has more pixels than `limits` allows.
    """

    def __init__(self, data: bytes | memoryview, image_format: ImageFormat, spec: InputSpec, limits: ImageLimits) -> None:
        self._format = image_format
        self._spec = spec
        self._file = _reduce_file(data, image_format, pixels=True)
        self._picture = _open(self._file, image_format, limits)
        self._upright = _UPRIGHT.get(_orientation(self._picture))
        if isinstance(self._picture, JpegImageFile):
            with _invalid_image_on_error(image_format):
                _decode_reduced(self._picture, spec)

    @property
    def needed_bytes(self) -> int:
        """Estimated peak memory of `read`."""
        return picture_bytes(self._picture, self._file, self._spec, is_turned=self._upright is not None)

    def read(self) -> Pixels:
        """Decode the picture to the (H, W, C) bytes of the model's shape; can be called once.

        Raises:
            InvalidImage: the picture is truncated or corrupt.
        """
        file, picture = self._file, self._picture
        with _invalid_image_on_error(self._format):
            if file.end_is_doubtful:
                jpeg.check_scans(file)
            shown = load_with_colour_on_white(picture, file.encoded)
            if isinstance(picture, JpegImageFile) and not file.end_is_doubtful and jpeg.ends_in_grey(shown):
                jpeg.check_scans(file)
            if isinstance(picture, PngImageFile) and png.may_lack_rows(picture):
                png.check_rows(file)
            upright = shown if self._upright is None else shown.transpose(self._upright)
            flat = _to_channels(upright, self._spec.shape[-1])
        return _resize(flat, self._spec)


def _reduce_file(data: bytes | memoryview, image_format: ImageFormat, *, pixels: bool) -> PictureFile:
    """Extract the parts of the file that concern the pixels; raises InvalidImage if its header is broken."""
    try:
        if image_format is ImageFormat.PNG:
            file = png.read_png(data, pixels=pixels)
        elif image_format is ImageFormat.JPEG:
            file = jpeg.read_jpeg(data, pixels=pixels)
        else:
            file = webp.read_webp(data)
    except (struct.error, IndexError):
        file = None
    if file is None:
        raise InvalidImage(
            f"the header of the {image_format.label} image is broken",
            field="image",
            expected=f"a whole {image_format.label} file",
        )
    return file


def _open(file: PictureFile, image_format: ImageFormat, limits: ImageLimits) -> ImageFile:
    limits.check(*file.size)
    with _invalid_image_on_error(image_format):
        picture = _PLUGINS[image_format](io.BytesIO(file.encoded))
    limits.check(*picture.size)
    picture.info.update(file.metadata)
    return picture


def fit_pixels(pixels: Pixels, spec: InputSpec) -> Pixels:
    """Convert (H, W, 1, 3 or 4) bytes to the model's channels, height and width."""
    height, width, _ = pixels.shape
    if pixels.shape == spec.shape and _kept_box(width, height, spec) == (0, 0, width, height):
        return pixels
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    return _resize(_to_channels(picture, spec.shape[-1]), spec)


@contextmanager
def _invalid_image_on_error(image_format: ImageFormat) -> Iterator[None]:
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
    """Reduce the size at which the JPEG decoder works: its inverse DCT can scale to a half, a quarter or an eighth."""
    if spec.interpolation is Interpolation.NEAREST:
        # the nearest interpolation has to take one of the picture's own pixels
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
        # PngImageFile's own method decodes the pixels first, in case the orientation comes after them
        value = Image.Image.getexif(picture).get(Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - a picture with a camera's broken EXIF data can still be read
        return 1
    return value if isinstance(value, int) else 1


def _to_channels(picture: Image.Image, channels: int) -> Image.Image:
    if picture.has_transparency_data:
        picture = on_white(picture)
    mode = "L" if channels == 1 else "RGB"
    return picture if picture.mode == mode else picture.convert(mode)


def _kept_box(width: int, height: int, spec: InputSpec) -> tuple[int, int, int, int]:
    """Compute left, top, right and bottom of the kept part: whole pixels, so that a picture of the model's size is unchanged."""
    if spec.resize is Resize.STRETCH:
        return 0, 0, width, height
    side = max(1, round(min(width, height) * spec.crop_fraction))
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _resize(picture: Image.Image, spec: InputSpec) -> Pixels:
    height, width, channels = spec.shape
    box = _kept_box(picture.width, picture.height, spec)
    resized = picture.resize((width, height), _RESAMPLING[spec.interpolation], box)
    return np.asarray(resized, np.uint8).reshape(height, width, channels)
