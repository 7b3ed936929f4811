"""Conversion of image bytes to an array: the API checks the header, a worker decodes the pixels.

    bytes ──inspect──▶ ImageHeader ─ ─ queue ─ ─▶ decode_into ──▶ input of the model's graph for one image
            │                                       │
            header only, O(bytes) at most           every pixel

- The model's description says whether raw arrays (bytes with shape and dtype) and .npy files are model-ready, or pixels.
- PNG, JPEG and WebP are always converted and resized. The first frame of an animation is used. EXIF orientation
  is applied, transparency is laid on white, colour profiles are not applied.
- Pixels have values 0 to 255 with any dtype. The description's scale, mean, deviation, channel order and layout are
  applied to them in place, in the slot of the batch: `model_input`. Model-ready arrays stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.domain import ImageFormat, ImageHeader
from inference.errors import InferenceError, InvalidImage, InvalidMetadata, ServiceUnavailable
from inference.imaging import arrays, declared, pictures
from inference.imaging.arrays import ArrayLayout
from inference.imaging.formats import ACCEPTED, ImageLimits, sniff
from inference.imaging.memory import array_bytes
from inference.imaging.model_input import write_pixels
from inference.imaging.refusals import refused_content, refused_document, refused_media_type
from inference.models.spec import InputSpec, RawArrays

__all__ = [
    "ImageLimits",
    "OpenImage",
    "decode",
    "decode_into",
    "inspect",
    "open_image",
    "sniff",
]


def inspect(
    data: bytes,
    *,
    shape: object | None,
    dtype: object | None,
    content_type: str | None,
    spec: InputSpec,
    limits: ImageLimits,
) -> ImageHeader:
    """Check an upload without decoding it.

    Args:
        data: the image's bytes.
        shape: the value of `metadata.shape`, in any form that `parse_shape` reads; None if it is not given.
        dtype: the value of `metadata.dtype`; None if it is not given. If both are given, the bytes are a raw array; one
            of them alone has to agree with the file.
        content_type: the media type that the client gave for the image, if any.
        spec: the input of the requested model.
        limits: the limits of this service.

    Raises:
        InvalidImage: the image is empty, its header is broken, or it does not have as many bytes as shape and dtype need.
        InvalidMetadata: shape or dtype is wrong or missing, or differs from the model's input or from the file.
        UnsupportedImageType: an image or document of a format that is not supported.
        PayloadTooLarge: the image has more pixels than `limits` allows.
    """
    if not data:
        raise InvalidImage("the image is empty", field="image", expected=ACCEPTED)
    if shape is not None and dtype is not None:
        layout = arrays.raw_layout(data, shape, dtype, spec, limits)
        return ImageHeader(ImageFormat.RAW, layout.shape, layout.dtype.str)
    image_format = sniff(data)
    if image_format is ImageFormat.NPY:
        declared.check_array_metadata(shape, dtype, arrays.npy_layout(data, spec, limits))
    elif image_format is not None:
        size = pictures.check_header(data, image_format, limits)
        is_on_its_side = partial(pictures.is_on_its_side, data, image_format, limits)
        declared.check_picture_metadata(shape, dtype, image_format, size, is_on_its_side)
    else:
        raise _refusal(data, shape, dtype, content_type)
    return ImageHeader(image_format, None, None)


def decode(data: bytes | memoryview, header: ImageHeader, spec: InputSpec, limits: ImageLimits) -> NDArray[Any]:
    """Decode an image to a C-contiguous array of `spec.array_shape` in its dtype; raises the errors of `decode_into`."""
    out = np.empty(spec.array_shape, spec.numpy_dtype)
    decode_into(out, data, header, spec, limits)
    return out


def decode_into(out: NDArray[Any], data: bytes | memoryview, header: ImageHeader, spec: InputSpec, limits: ImageLimits) -> None:
    """Decode an image into `out`, e.g. one slot of a batch in shared memory.

    All checks of `inspect` are repeated: the bytes come from a store, and the model may have changed.

    Args:
        out: a C-contiguous array of `spec.array_shape` and `spec.numpy_dtype`; its content after an error is undefined.
        data: the image's bytes.
        header: the result of `inspect` for them.
        spec: the input of the model.
        limits: the limits of this service.

    Raises:
        InvalidImage: the image is truncated or corrupt, or has values that no pixel or model input may have.
        InvalidMetadata: the array does not fit the model any more.
        PayloadTooLarge: the image has more pixels than `limits` allows.
        ServiceUnavailable: not enough memory.
        ValueError: `out` is not such an array (a fault of the calling code).
    """
    if out.shape != spec.array_shape or out.dtype != spec.numpy_dtype or not out.flags.c_contiguous:
        raise ValueError(f"out is {out.shape} {out.dtype}, the model's input {spec.array_shape} {spec.numpy_dtype}")
    open_image(data, header, spec, limits).decode_into(out)


class OpenImage:
    """An image with a header that was read, and pixels that were not decoded yet.

    Args:
        needed_bytes: peak memory of decoding, the file included, estimated from the header.
        fill: decodes the image into an array.
    """

    __slots__ = ("_fill", "needed_bytes")

    def __init__(self, needed_bytes: int, fill: Callable[[NDArray[Any]], None]) -> None:
        self.needed_bytes = needed_bytes
        self._fill = fill

    def decode_into(self, out: NDArray[Any]) -> None:
        """Decode the image, once; raises the errors of the function `decode_into` except ValueError."""
        try:
            self._fill(out)
        except MemoryError as error:
            raise _out_of_memory() from error


def open_image(data: bytes | memoryview, header: ImageHeader, spec: InputSpec, limits: ImageLimits) -> OpenImage:
    """Read the header of an image and decode nothing; raises the errors of `decode_into` except ValueError."""
    try:
        if header.format is ImageFormat.RAW:
            layout = arrays.raw_layout(data, header.shape, header.dtype, spec, limits)
        elif header.format is ImageFormat.NPY:
            layout = arrays.npy_layout(data, spec, limits)
        else:
            picture = pictures.OpenPicture(data, header.format, spec, limits)
            return OpenImage(picture.needed_bytes, lambda out: write_pixels(out, picture.read(), spec))
    except MemoryError as error:
        raise _out_of_memory() from error
    return OpenImage(array_bytes(layout, spec), lambda out: _copy_array(out, layout, data, spec))


def _copy_array(out: NDArray[Any], layout: ArrayLayout, data: bytes | memoryview, spec: InputSpec) -> None:
    values = layout.read(data)
    if spec.raw is RawArrays.MODEL_READY:
        arrays.copy_model_ready(out, values)
    else:
        write_pixels(out, pictures.fit_pixels(arrays.as_pixels(values), spec), spec)


def _out_of_memory() -> ServiceUnavailable:
    return ServiceUnavailable("not enough memory to decode the image at the moment", field="image")


def _refusal(data: bytes, shape: object | None, dtype: object | None, content_type: str | None) -> InferenceError:
    """Create the error for bytes of an unknown format."""
    if (refusal := refused_content(data)) is not None:
        return refusal
    expected = "shape and dtype in metadata, or a PNG, JPEG, WebP or .npy file"
    if shape is not None or dtype is not None:
        missing = "dtype" if shape is not None else "shape"
        detail = f"raw bytes need shape and dtype, and {missing} is missing"
        return InvalidMetadata(detail, field=f"metadata.{missing}", expected=expected)
    if (refusal := refused_media_type(content_type) or refused_document(data)) is not None:
        return refusal
    detail = "the bytes are not a PNG, JPEG, WebP or .npy file, and raw bytes need shape and dtype"
    return InvalidMetadata(detail, field="metadata.shape", expected=expected)
