"""Specs, pictures and files that the tests of `inference.imaging` share."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.samples import as_sent

from inference import imaging
from inference.domain import ImageHeader
from inference.errors import InferenceError, InvalidImage
from inference.imaging import ImageLimits
from inference.models.spec import InputSpec, RawArrays, Resize

LIMITS = ImageLimits(max_pixels=1_000_000)
READY = InputSpec(shape=(32, 32, 3))
READY_FLOAT = InputSpec(shape=(32, 32, 3), dtype="float32")
READY_GREY = InputSpec(shape=(32, 32, 1))
PIXELS = InputSpec(shape=(32, 32, 3), raw=RawArrays.PIXELS)
PIXELS_FLOAT = InputSpec(shape=(32, 32, 3), dtype="float32", raw=RawArrays.PIXELS)
PIXELS_GREY = InputSpec(shape=(32, 32, 1), raw=RawArrays.PIXELS)
#: with an orientation
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def noise(*shape: int, dtype: str = "uint8", seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(dtype)


def smooth(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A picture that survives JPEG: a few colours, blended."""
    small = Image.fromarray(noise(5, 7, 3, seed=seed))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def encoded(picture: Image.Image | NDArray[Any], kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(file, kind, **options)
    return file.getvalue()


def npy(array: NDArray[Any], version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


def npy_with_header(header: str, values: bytes = b"") -> bytes:
    text = header.encode("latin-1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + values


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: bytes) -> bytes:
    """A PNG written by hand: Pillow writes neither every bit depth nor a wrong size."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + b"".join(chunks) + body + png_chunk(b"IEND", b"")


def png_rows(values: NDArray[Any]) -> bytes:
    return b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in values)


def inspect(
    data: bytes,
    spec: InputSpec = PIXELS,
    *,
    shape: object = None,
    dtype: object = None,
    content_type: str | None = None,
) -> ImageHeader:
    return imaging.inspect(data, shape=shape, dtype=dtype, content_type=content_type, spec=spec, limits=LIMITS)


def through(data: bytes, spec: InputSpec = PIXELS, *, shape: object = None, dtype: object = None) -> NDArray[Any]:
    """Return the model's input: through the API's inspection, the queue as JSON, and the worker."""
    header = inspect(data, spec, shape=shape, dtype=dtype)
    return imaging.decode(data, ImageHeader.from_dict(as_sent(header)), spec, LIMITS)


def size_of(picture: NDArray[Any]) -> InputSpec:
    return InputSpec(shape=(picture.shape[0], picture.shape[1], 3), resize=Resize.STRETCH, raw=RawArrays.PIXELS)


def assert_same(data: bytes, whole: bytes) -> None:
    np.testing.assert_array_equal(through(data), through(whole))


def assert_refused(data: bytes, says: str | None = None) -> None:
    """The worker finds it at the latest, whether or not the header was checked before."""
    with pytest.raises(InvalidImage, match=says) as caught:
        through(data)
    assert (caught.value.status, caught.value.field) == (400, "image")
    with pytest.raises(InvalidImage, match=says):
        imaging.decode(data, ImageHeader(imaging.sniff(data)), PIXELS, LIMITS)  # type: ignore[arg-type]


def attempt(action: Callable[[], object]) -> InferenceError | None:
    """Return the refusal, if it is one: any other exception fails the test."""
    try:
        action()
    except InferenceError as refusal:
        return refusal
    return None
