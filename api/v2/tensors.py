"""Input tensors: from JSON or binary data to the bytes of each image.

Shape, datatype and data may contradict each other in every way: the number of elements is compared with the shape before anything
of that size is created.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api.v2.datatypes import BYTES, DTYPES
from api.v2.protocol import InputTensor
from inference.errors import InvalidRequest, PayloadTooLarge, shown

#: Name of the one input of every model.
IMAGE = "image"
#: Dimensions of a batch of arrays: images, height, width, channels.
_BATCH_DIMENSIONS = 4
#: Bytes of the length before each element of binary BYTES.
_LENGTH_BYTES = 4
#: Types of the numbers in JSON, by kind of the dtype.
_TYPES: Mapping[str, set[type]] = {"b": {bool}, "i": {int, float}, "u": {int, float}, "f": {int, float}}


@dataclass(frozen=True)
class Images:
    """Images of an input tensor."""

    #: of each image, a file or the bytes of an array
    contents: list[bytes]
    #: height, width, channels of an array, in the order of the model's input; None for files
    shape: list[int] | None = None
    #: numpy's name of an array's dtype, with the byte order
    dtype: str | None = None


def read_images(tensor: InputTensor, binary: memoryview, *, max_images: int) -> Images:
    """Read the images of the one input.

    Args:
        binary: the bytes after the JSON object.
        max_images: maximum length of the first dimension.

    Raises:
        InvalidRequest: name, datatype, shape and data are not those of images, or contradict each other.
        PayloadTooLarge: there are too many images.
    """
    if tensor.name != IMAGE:
        raise InvalidRequest(f"there is no input {shown(tensor.name)}", expected=f"the input {IMAGE}")
    if tensor.shape[0] > max_images:
        detail = f"{tensor.shape[0]} images are more than a request may have"
        raise PayloadTooLarge(detail, expected=f"at most {max_images} (batch.max_items)")
    content = _binary_content(tensor, binary)
    if tensor.datatype == BYTES:
        return Images(_files(tensor, content))
    dtype = DTYPES.get(tensor.datatype)
    if dtype is None:
        raise InvalidRequest(f"there is no datatype {shown(tensor.datatype)} here", expected=", ".join((*DTYPES, BYTES)))
    if len(tensor.shape) != _BATCH_DIMENSIONS:
        detail = f"the shape {tensor.shape} has {len(tensor.shape)} dimensions"
        raise InvalidRequest(detail, expected="4: images, height, width, channels")
    if content is None:
        content = memoryview(_array(tensor, dtype).tobytes())
    needed = math.prod(tensor.shape) * dtype.itemsize
    if len(content) != needed:
        detail = f"the shape {tensor.shape} of {tensor.datatype} needs {needed} bytes, and there are {len(content)}"
        raise InvalidRequest(detail)
    size = needed // tensor.shape[0]
    contents = [bytes(content[start : start + size]) for start in range(0, needed, size)]
    return Images(contents, tensor.shape[1:], dtype.str)


def _binary_content(tensor: InputTensor, binary: memoryview) -> memoryview | None:
    """Return the binary data of the tensor; None if its data is in JSON. Raises InvalidRequest."""
    parameters = tensor.parameters
    if parameters is not None and parameters.shared_memory_region is not None:
        raise InvalidRequest("there is no shared memory here", expected="data or binary_data_size")
    size = None if parameters is None else parameters.binary_data_size
    if (size or 0) != len(binary):
        detail = f"binary_data_size is {size or 0}, and {len(binary)} bytes follow the JSON object"
        raise InvalidRequest(f"{detail} (its length is the header Inference-Header-Content-Length)")
    if size is not None and tensor.data is not None:
        raise InvalidRequest("the input has data and binary_data_size", expected="one of the two")
    if size is None and not isinstance(tensor.data, list):
        raise InvalidRequest(f"data is {shown(tensor.data)}", expected="a list, or binary_data_size and binary data")
    return None if size is None else binary


def _files(tensor: InputTensor, content: memoryview | None) -> list[bytes]:
    count = tensor.shape[0]
    if tensor.shape[1:] not in ([], [1]):
        raise InvalidRequest(f"the shape {tensor.shape} is not that of image files", expected="[N] or [N, 1]")
    if content is not None:
        return _binary_elements(content, count)
    texts = _flat(tensor.data, len(tensor.shape), {str})
    _check_count(len(texts), tensor)
    try:
        return [base64.b64decode(text, validate=True) for text in texts]
    except ValueError as error:  # in JSON there is no other way to send the bytes of a file
        raise InvalidRequest("an element of BYTES in JSON is not base64", expected="base64, or binary data") from error


def _binary_elements(content: memoryview, count: int) -> list[bytes]:
    """Split binary BYTES: each element has its length before it, 4 bytes, little-endian. Raises InvalidRequest."""
    elements: list[bytes] = []
    at = 0
    while at < len(content) and len(elements) < count:
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(content[start - _LENGTH_BYTES : start], "little")
        if at > len(content):
            raise InvalidRequest(f"element {len(elements)} of BYTES ends {at - len(content)} bytes behind the data")
        elements.append(bytes(content[start:at]))
    if len(elements) != count or at != len(content):
        detail = f"the data has {len(elements)} elements and {len(content) - at} more bytes"
        raise InvalidRequest(detail, expected=f"the {count} elements of the shape, each with its length before it")
    return elements


def _array(tensor: InputTensor, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Convert numbers in JSON. Raises InvalidRequest: a number does not fit the dtype."""
    numbers = _flat(tensor.data, len(tensor.shape), _TYPES[dtype.kind])
    _check_count(len(numbers), tensor)
    try:
        if dtype.kind in "iu" and float in set(map(type, numbers)):
            numbers = [_whole(number) for number in numbers]
        with np.errstate(over="ignore"):  # the model's input refuses infinity
            return np.array(numbers, dtype)
    except (OverflowError, ValueError) as error:
        raise InvalidRequest(f"data has numbers that {tensor.datatype} does not have") from error


def _whole(number: float) -> int:
    """Convert a number such as 7.0, as some clients write whole numbers. Raises ValueError, OverflowError."""
    whole = int(number)
    if whole != number:
        raise ValueError
    return whole


def _flat(data: list[Any], dimensions: int, types: set[type]) -> list[Any]:
    """Flatten a list that is nested as its shape is, or flat already. Raises InvalidRequest: it has other elements."""
    for _ in range(dimensions):
        found = set(map(type, data))
        if found <= types:
            return data
        if found != {list} or len(set(map(len, data))) > 1:
            break
        data = list(chain.from_iterable(data))
    raise InvalidRequest(f"data is not a flat or nested list of {_named(types)}", expected="as many elements as the shape says")


def _named(types: Iterable[type]) -> str:
    names = {bool: "true and false", int: "numbers", float: "numbers", str: "texts in base64"}
    return min(names[kind] for kind in types)


def _check_count(count: int, tensor: InputTensor) -> None:
    if count != math.prod(tensor.shape):
        raise InvalidRequest(
            f"data has {count} elements", expected=f"{math.prod(tensor.shape)}, as the shape {tensor.shape} says"
        )
