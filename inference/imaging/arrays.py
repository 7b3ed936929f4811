"""Raw arrays and .npy files: their shape and dtype, and their values."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.array_metadata import image_lengths, joined, parse_dtype, parse_shape
from inference.domain import ImageFormat
from inference.errors import InvalidImage, InvalidMetadata
from inference.imaging.formats import ImageLimits, sniff
from inference.imaging.pixel_range import MAX_PIXEL_VALUE, check_pixel_floats
from inference.imaging.refusals import is_base64_of, refused_content, refused_document
from inference.models.spec import InputSpec, Layout, RawArrays

Pixels = NDArray[np.uint8]

_CHANNELS = (1, 3, 4)

#: NumPy evaluates the header as Python; the header of a plain array has 118 bytes
_MAX_NPY_HEADER_BYTES = 1024


@dataclass(frozen=True)
class ArrayLayout:
    """Layout of one image that is stored as an array: all that is needed to read its values."""

    #: (H, W, C) of pixels; of model-ready arrays, as the model's graph takes them
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int = 0
    fortran_order: bool = False

    def read(self, data: bytes | memoryview) -> NDArray[Any]:
        """Return the values in the layout's shape: a view of `data`, or a copy if they are booleans."""
        flat = np.frombuffer(data, self.dtype, math.prod(self.shape), self.offset)
        if self.dtype.kind == "b":
            # a byte other than 0 and 1 is not a valid NumPy boolean, and arithmetic on it is undefined
            flat = flat.view(np.uint8) != 0
        return flat.reshape(self.shape, order="F" if self.fortran_order else "C")


def raw_layout(data: bytes | memoryview, shape: object, dtype: object, spec: InputSpec, limits: ImageLimits) -> ArrayLayout:
    """Find the layout of raw bytes with a shape and a dtype: H,W (the byte count determines the channels) or three lengths.

    Raises:
        InvalidMetadata: shape or dtype is wrong, or the model does not take it.
        InvalidImage: the number of bytes differs from the number that shape and dtype need.
        PayloadTooLarge: the image has more pixels than `limits` allows.
    """
    lengths, kind = image_lengths(parse_shape(shape)), parse_dtype(dtype)
    plane, rest = math.prod(lengths[:2]) * kind.itemsize, lengths[2:]
    choices = {plane * c: c for c in rest or _CHANNELS}
    channels = choices.get(len(data))
    if channels is None:
        raise _wrong_byte_count(data, lengths, kind, list(choices))
    # base64 turns three bytes into four, so three channels look like four
    if not rest and channels == max(_CHANNELS) and is_base64_of(data, len(data) * 3 // 4):
        detail = f"the image is base64 text of {len(data) * 3 // 4} bytes: decode it first"
        raise InvalidImage(detail, field="image", expected="the decoded bytes")
    layout = ArrayLayout(_image_shape(lengths, channels, spec), kind)
    _check_fit(layout, spec, limits)
    return layout


def npy_layout(data: bytes | memoryview, spec: InputSpec, limits: ImageLimits) -> ArrayLayout:
    """Read the layout of a .npy file with two or three lengths; never unpickles.

    Raises:
        InvalidImage: the header is broken, announces another byte count, or describes an array that the model does not take.
        PayloadTooLarge: the image has more pixels than `limits` allows.
    """
    shape, fortran_order, dtype, offset = _npy_header(data)
    try:
        lengths = _image_shape(image_lengths(parse_shape(shape)), 1, spec)
        # parsed by its name, so that records and objects are refused with the same error as in metadata
        layout = ArrayLayout(lengths, parse_dtype(dtype.str), offset, fortran_order)
        _check_fit(layout, spec, limits)
    except InvalidMetadata as error:
        # the client gave no metadata that it could correct: the error is in the file
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
    """Convert values 0 to 255 of any dtype to bytes: booleans become 0 and 255, floats are rounded and clipped.

    Raises:
        InvalidImage: there are NaN or infinite values, scaled or shifted floats, or whole numbers outside 0 to 255.
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
        InvalidImage: there are NaN or infinite values (before or after the cast), or whole numbers that do not fit.
    """
    if out.dtype == np.uint8:
        _check_byte_range(values)
    with np.errstate(over="ignore", invalid="ignore"):
        np.copyto(out, values, casting="unsafe")
    if out.dtype.kind == "f":
        _check_finite(out)


def _image_shape(lengths: tuple[int, ...], channels: int, spec: InputSpec) -> tuple[int, int, int]:
    """Return three lengths: an array with two gets its channels where the layout of `spec` has them; pixels have them last."""
    first, second, *rest = lengths
    if rest:
        return first, second, rest[0]
    is_channels_first = spec.layout is Layout.NCHW and spec.raw is RawArrays.MODEL_READY
    return (channels, first, second) if is_channels_first else (first, second, channels)


def _check_fit(layout: ArrayLayout, spec: InputSpec, limits: ImageLimits) -> None:
    if spec.raw is RawArrays.PIXELS:
        height, width, channels = layout.shape
        if channels not in _CHANNELS:
            raise InvalidMetadata(
                f"the shape {joined(layout.shape)} has {channels} channels",
                field="metadata.shape",
                expected="height,width or height,width,channels, with 1, 3 or 4 channels in the last place",
            )
        limits.check(width, height)
        return
    if layout.shape != spec.array_shape:
        raise InvalidMetadata(
            f"the shape {joined(layout.shape)} is not the model's {joined(spec.array_shape)}",
            field="metadata.shape",
            expected=joined(spec.array_shape),
        )
    # NumPy's "same_kind" rule refuses int64 (the type of plain Python lists) for uint8, and lets uint16 wrap: so any
    # whole-number type is accepted here, and `copy_model_ready` refuses values that do not fit
    if spec.numpy_dtype.kind != "f" and layout.dtype.kind == "f":
        raise InvalidMetadata(
            f"{layout.dtype} values do not go into the model's {spec.dtype} without loss",
            field="metadata.dtype",
            expected=f"{spec.dtype}, or another whole-number type",
        )


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
    """Read shape, Fortran order, dtype and offset of the values; format: numpy.lib.format, versions 1.0 and 2.0."""
    file = io.BytesIO(data[: 2 * _MAX_NPY_HEADER_BYTES])
    try:
        version = np.lib.format.read_magic(file)
        # version 3.0 differs only in the encoding of field names, and records are not images
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran_order, dtype = read(file, max_header_size=_MAX_NPY_HEADER_BYTES)
    except Exception as error:
        # for forged headers NumPy's parser raises anything from SyntaxError to RecursionError
        raise InvalidImage(
            "the header of the .npy file cannot be read", field="image", expected=f"an {ImageFormat.NPY.label} file"
        ) from error
    return shape, fortran_order, dtype, file.tell()


def _check_finite(values: NDArray[Any]) -> None:
    # minimum and maximum propagate NaN and infinity, without an array of booleans
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
