"""Raw arrays and .npy files: their shape and dtype, and their values."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.errors import InvalidImage, InvalidMetadata, shown
from inference.imaging.formats import ImageFormat, ImageLimits, sniff
from inference.imaging.pixel_range import MAX_PIXEL_VALUE, check_pixel_floats
from inference.imaging.refusals import is_base64_of, refused_content, refused_document
from inference.models.spec import InputSpec, RawArrays

Pixels = NDArray[np.uint8]

_CHANNELS = (1, 3, 4)
_MAX_DIMENSIONS = 4
#: no array in memory is longer, and a product of four stays cheap
_MAX_LENGTH = 2**31 - 1

_SHAPE_TEXT = re.compile(r"\s*([\[(]?)\s*(\d{1,10}(?:\s*[,xX]\s*\d{1,10})*)\s*,?\s*([\])]?)\s*", re.ASCII)
_BRACKETS = {"": "", "[": "]", "(": ")"}
_SHAPE_EXPECTED = "1 to 4 positive whole numbers, e.g. 32,32,3 or 256x256 or [256, 256, 3]"

#: keeps numpy's little languages out: records ("f4,f4"), sub-arrays ("3f4"), dates ("M8[s]")
_DTYPE_TEXT = re.compile(r"[<>=|]?[a-z?][a-z0-9_]{0,15}", re.ASCII | re.IGNORECASE)
_DTYPE_KINDS = "biuf"
#: longer floats differ from one platform to the next
_MAX_ITEM_BYTES = 8
_DTYPE_EXPECTED = "a numpy boolean, whole-number or floating-point type, e.g. uint8, float32 or >f4"

#: of a shape or a dtype; what is made of one is kept, since many images in a row have the same
_MAX_TEXT_LENGTH = 100

#: numpy evaluates the header as Python; one of a plain array has 118 bytes
_MAX_NPY_HEADER_BYTES = 1024


def parse_shape(value: object) -> tuple[int, ...]:
    """A shape from "32,32,3", "32x32x3", "(32, 32, 3)" or a list of numbers: 1 to 4 positive whole numbers.

    Raises:
        InvalidMetadata: anything else.
    """
    numbers: Sequence[object] = value if isinstance(value, list | tuple) and len(value) <= _MAX_TEXT_LENGTH else ()
    if isinstance(value, str) and len(value) <= _MAX_TEXT_LENGTH:
        numbers = _numbers_in(value)
    lengths = tuple(n for n in numbers if type(n) is int and 0 < n <= _MAX_LENGTH)
    if not 1 <= len(lengths) <= _MAX_DIMENSIONS or len(lengths) != len(numbers):
        raise InvalidMetadata(f"{shown(value)} is not a shape", field="metadata.shape", expected=_SHAPE_EXPECTED)
    return lengths


def parse_dtype(value: object) -> np.dtype[Any]:
    """A numpy dtype from its name or its string with a byte order: booleans, whole numbers and floats to 8 bytes.

    Raises:
        InvalidMetadata: anything else, e.g. objects, strings, complex numbers, records and dates.
    """
    dtype = _dtype_named(value) if isinstance(value, str) and len(value) <= _MAX_TEXT_LENGTH else None
    if dtype is None or not _is_number(dtype):
        detail = f"{shown(value)} is not a dtype that images can have"
        raise InvalidMetadata(detail, field="metadata.dtype", expected=_DTYPE_EXPECTED)
    return dtype


@lru_cache
def _numbers_in(text: str) -> tuple[int, ...]:
    """Of a shape; empty where it is none."""
    match = _SHAPE_TEXT.fullmatch(text)
    if match is None or _BRACKETS[match[1]] != match[3]:
        return ()
    return tuple(int(number) for number in re.findall(r"\d+", match[2], re.ASCII))


@lru_cache
def _dtype_named(text: str) -> np.dtype[Any] | None:
    name = text.strip()
    try:
        return np.dtype(name) if _DTYPE_TEXT.fullmatch(name) else None
    except (TypeError, ValueError):
        return None


@dataclass(frozen=True)
class ArrayLayout:
    """One image as an array in bytes: what is to be known to read its values."""

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int = 0
    fortran_order: bool = False

    def read(self, data: bytes | memoryview) -> NDArray[Any]:
        """The (H, W, C) values, a view of `data` but for booleans."""
        flat = np.frombuffer(data, self.dtype, math.prod(self.shape), self.offset)
        if self.dtype.kind == "b":
            # a byte other than 0 and 1 is no valid numpy boolean, and arithmetic on it is undefined
            flat = flat.view(np.uint8) != 0
        return flat.reshape(self.shape, order="F" if self.fortran_order else "C")


def raw_layout(data: bytes | memoryview, shape: object, dtype: object, spec: InputSpec, limits: ImageLimits) -> ArrayLayout:
    """The layout of raw bytes with a shape and a dtype: H,W (its channels follow from the byte count) or H,W,C.

    Raises:
        InvalidMetadata: shape or dtype is wrong or not what the model takes.
        InvalidImage: there are not as many bytes as they ask for.
        PayloadTooLarge: more pixels than `limits` allows.
    """
    lengths, kind = image_lengths(parse_shape(shape)), parse_dtype(dtype)
    height, width, *rest = lengths
    choices = {height * width * c * kind.itemsize: c for c in rest or _CHANNELS}
    channels = choices.get(len(data))
    if channels is None:
        raise _wrong_byte_count(data, lengths, kind, list(choices))
    # base64 makes four bytes of three, and so four channels of three
    if not rest and channels == max(_CHANNELS) and is_base64_of(data, len(data) * 3 // 4):
        detail = f"the image is base64 text of {len(data) * 3 // 4} bytes: decode it first"
        raise InvalidImage(detail, field="image", expected="the bytes that it stands for")
    layout = ArrayLayout((height, width, channels), kind)
    _check_fit(layout, spec, limits)
    return layout


def npy_layout(data: bytes | memoryview, spec: InputSpec, limits: ImageLimits) -> ArrayLayout:
    """The layout of a .npy file, H,W or H,W,C; never unpickles.

    Raises:
        InvalidImage: a broken header, another byte count than it announces, or an array that the model does not take.
        PayloadTooLarge: more pixels than `limits` allows.
    """
    shape, fortran_order, dtype, offset = _npy_header(data)
    try:
        height, width, *rest = image_lengths(parse_shape(shape))
        channels = rest[0] if rest else 1
        # through its name, so that records and objects meet the same refusal as in metadata
        layout = ArrayLayout((height, width, channels), parse_dtype(dtype.str), offset, fortran_order)
        _check_fit(layout, spec, limits)
    except InvalidMetadata as error:
        # the sender gave no metadata to mend: what is wrong is in the file
        raise InvalidImage(f"the .npy file: {error.detail}", field="image", expected=error.expected) from error
    needed = offset + math.prod(layout.shape) * dtype.itemsize
    if len(data) != needed:
        raise InvalidImage(
            f"the .npy file has {len(data)} bytes, but its header announces {needed}",
            field="image",
            expected=f"{needed} bytes",
        )
    return layout


def as_pixels(values: NDArray[Any]) -> Pixels:
    """Values 0 to 255 of any dtype as bytes: booleans become 0 and 255, floats are rounded and clipped.

    Raises:
        InvalidImage: NaN or infinity, floats that were scaled or shifted, or whole numbers outside 0 to 255.
    """
    if values.dtype.kind == "b":
        return np.where(values, np.uint8(MAX_PIXEL_VALUE), np.uint8(0))
    if values.dtype.kind == "f":
        _check_finite(values)
        check_pixel_floats(values)
        rounded: Pixels = np.rint(np.clip(values, 0, MAX_PIXEL_VALUE)).astype(np.uint8)
        return rounded
    _check_byte_range(values)
    return values.astype(np.uint8)


def copy_model_ready(out: NDArray[Any], values: NDArray[Any]) -> None:
    """Cast `values` into `out`, the model's input, without scaling.

    Raises:
        InvalidImage: NaN or infinity, also by the cast, or whole numbers that do not fit.
    """
    if out.dtype == np.uint8:
        _check_byte_range(values)
    with np.errstate(over="ignore", invalid="ignore"):
        np.copyto(out, values, casting="unsafe")
    if out.dtype.kind == "f":
        _check_finite(out)


def _check_fit(layout: ArrayLayout, spec: InputSpec, limits: ImageLimits) -> None:
    height, width, channels = layout.shape
    if spec.raw is RawArrays.PIXELS:
        if channels not in _CHANNELS:
            raise InvalidMetadata(
                f"the shape {joined(layout.shape)} has {channels} channels",
                field="metadata.shape",
                expected="height,width or height,width,channels, with 1, 3 or 4 channels in the last place",
            )
        limits.check(width, height)
        return
    if layout.shape != spec.shape:
        raise InvalidMetadata(
            f"the shape {joined(layout.shape)} is not the model's {joined(spec.shape)}",
            field="metadata.shape",
            expected=joined(spec.shape),
        )
    # numpy's "same_kind" rule refuses int64 for uint8, which is what plain Python lists become, and lets uint16 wrap:
    # so any whole-number type is taken here, and `copy_model_ready` refuses the values that do not fit
    if spec.numpy_dtype.kind != "f" and layout.dtype.kind == "f":
        raise InvalidMetadata(
            f"{layout.dtype} values do not go into the model's {spec.dtype} without loss",
            field="metadata.dtype",
            expected=f"{spec.dtype}, or another whole-number type",
        )


def image_lengths(shape: tuple[int, ...]) -> tuple[int, ...]:
    """H,W or H,W,C: `shape` without a leading batch dimension of 1."""
    image = shape[1:] if len(shape) == _MAX_DIMENSIONS and shape[0] == 1 else shape
    if len(image) not in (2, 3):
        raise InvalidMetadata(
            f"the shape {joined(shape)} is not that of one image",
            field="metadata.shape",
            expected="height,width or height,width,channels",
        )
    return image


def _wrong_byte_count(
    data: bytes | memoryview, lengths: tuple[int, ...], dtype: np.dtype[Any], choices: list[int]
) -> InvalidImage:
    needed = " or ".join(map(str, choices))
    detail = f"the image has {len(data)} bytes, but the shape {joined(lengths)} of {dtype} needs {needed}"
    expected = f"{needed} bytes"
    encoded = sniff(data)
    if encoded is not None:
        detail += f"; it is a {encoded.label} file, so leave shape and dtype out"
        expected = f"a {encoded.label} file without shape and dtype, or {expected}"
    elif (refusal := refused_content(data)) is not None:
        detail += f"; {refusal.detail}"
        expected = f"{refusal.expected}; or {expected}"
    elif any(is_base64_of(data, choice) for choice in choices):
        detail += "; it is base64 text: decode it first"
    elif (refusal := refused_document(data)) is not None:
        detail += f"; {refusal.detail}"
    return InvalidImage(detail, field="image", expected=expected)


def _npy_header(data: bytes | memoryview) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, Fortran order, dtype and the offset of the values; format: numpy.lib.format, versions 1.0 and 2.0."""
    file = io.BytesIO(data[: 2 * _MAX_NPY_HEADER_BYTES])
    try:
        version = np.lib.format.read_magic(file)
        # 3.0 differs in the encoding of field names only, and records are no images
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran_order, dtype = read(file, max_header_size=_MAX_NPY_HEADER_BYTES)
    except Exception as error:
        # what numpy's parser raises for made-up headers is anything from SyntaxError to RecursionError
        raise InvalidImage(
            "the header of the .npy file cannot be read", field="image", expected=f"an {ImageFormat.NPY.label} file"
        ) from error
    return shape, fortran_order, dtype, file.tell()


def _check_finite(values: NDArray[Any]) -> None:
    # minimum and maximum carry NaN and infinity, and need no array of booleans
    if not (np.isfinite(values.min()) and np.isfinite(values.max())):
        raise InvalidImage("the array has NaN or infinite values", field="image", expected="finite values")


def _check_byte_range(values: NDArray[Any]) -> None:
    if values.dtype.kind == "b" or values.dtype == np.uint8:
        return
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > MAX_PIXEL_VALUE:
        raise InvalidImage(
            f"the array has values from {low} to {high}", field="image", expected=f"values from 0 to {MAX_PIXEL_VALUE}"
        )


def _is_number(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in _DTYPE_KINDS and dtype.itemsize <= _MAX_ITEM_BYTES


def joined(shape: tuple[int, ...]) -> str:
    return ",".join(map(str, shape))
