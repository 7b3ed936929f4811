"""Images as callers have them, and as they are sent."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Union, runtime_checkable


@runtime_checkable
class ReadableFile(Protocol):
    """Open file in binary mode."""

    def read(self) -> bytes:
        """Read to the end."""


@runtime_checkable
class Picture(Protocol):
    """Picture of Pillow."""

    @property
    def mode(self) -> str:
        """Kind of pixels."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""

    def convert(self, mode: str) -> Any:
        """Return a picture of another mode."""

    def getexif(self) -> Any:
        """Return the metadata of the camera."""

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:  # noqa: A002 - Pillow's name
        """Write a file."""


@runtime_checkable
class Array(Protocol):
    """Array of numpy."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and channels."""

    @property
    def dtype(self) -> Any:
        """Type of the numbers."""

    def tobytes(self) -> bytes:
        """Copy the numbers in C order."""


#: An image: a path, `s3://BUCKET/KEY`, bytes of a file, an open file, a Pillow picture or a numpy array.
ImageSource = Union[str, "os.PathLike[str]", bytes, bytearray, memoryview, ReadableFile, Picture, Array]

_URL = re.compile(r"(?:s3|https?)://", re.IGNORECASE)
#: Modes of Pillow that PNG has; a picture of another one is converted.
_PNG_MODES = frozenset({"1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"})
_CHANNELS = 4


@dataclass(frozen=True)
class EncodedImage:
    """Bytes of an image; `options` has `shape` and `dtype` if they are those of an array."""

    name: str
    data: bytes
    options: Mapping[str, Any]


def url_of(image: ImageSource) -> str | None:
    """Return the URL that names an image: `s3://…`, `https://…`; None if the image is none."""
    return image if isinstance(image, str) and _URL.match(image) else None


def encode(image: ImageSource) -> EncodedImage:
    """Read or encode an image that is no URL.

    Raises:
        OSError: the file cannot be read.
        TypeError: it is none of the kinds of images.
    """
    if isinstance(image, (str, os.PathLike)):
        path = Path(image)
        return EncodedImage(path.name, path.read_bytes(), {})
    if isinstance(image, (bytes, bytearray, memoryview)):
        return EncodedImage("image", bytes(image), {})
    if isinstance(image, Picture):
        return EncodedImage("image.png", _png(image), {})
    if isinstance(image, Array):
        options = {"shape": list(image.shape), "dtype": image.dtype.str.lstrip("|=")}
        return EncodedImage("array", image.tobytes(), options)
    if isinstance(image, ReadableFile):
        return _read(image)
    raise TypeError(
        f"{type(image).__name__} is no image: expected a path, bytes, an open file, a Pillow picture, a numpy array or a URL"
    )


def size_of(image: ImageSource) -> int:
    """Return the size of an image in bytes as far as it is known without reading it, else 0."""
    if url_of(image) is not None:
        return 0
    if isinstance(image, (str, os.PathLike)):
        with suppress(OSError):
            return Path(image).stat().st_size
        return 0
    if isinstance(image, Picture):
        return image.size[0] * image.size[1] * _CHANNELS
    return int(getattr(image, "nbytes", 0)) or (len(image) if isinstance(image, (bytes, bytearray)) else 0)


def _read(file: ReadableFile) -> EncodedImage:
    data = file.read()
    if not isinstance(data, bytes):
        raise TypeError("the file is open as text: open it in binary mode, open(path, 'rb')")
    name = getattr(file, "name", None)
    return EncodedImage(Path(name).name if isinstance(name, str) else "image", data, {})


def _png(picture: Picture) -> bytes:
    exif = picture.getexif()  # has the orientation, which the service follows
    plain = picture if picture.mode in _PNG_MODES else picture.convert("RGB")
    buffer = io.BytesIO()
    plain.save(buffer, format="PNG", compress_level=1, **({"exif": exif} if exif else {}))
    return buffer.getvalue()
