"""Shape and dtype of an array, read from metadata and settings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from inference.errors import InvalidMetadata, shown

_MAX_DIMENSIONS = 4
#: no array in memory has a longer dimension, and the product of four such numbers is quick to compute
_MAX_LENGTH = 2**31 - 1

_SHAPE_TEXT = re.compile(r"\s*([\[(]?)\s*(\d{1,10}(?:\s*[,xX]\s*\d{1,10})*)\s*,?\s*([\])]?)\s*", re.ASCII)
_BRACKETS = {"": "", "[": "]", "(": ")"}
_SHAPE_EXPECTED = "1 to 4 positive whole numbers, e.g. 32,32,3 or 256x256 or [256, 256, 3]"

#: excludes numpy's notations for other types: records ("f4,f4"), sub-arrays ("3f4"), dates ("M8[s]")
_DTYPE_TEXT = re.compile(r"[<>=|]?[a-z?][a-z0-9_]{0,15}", re.ASCII | re.IGNORECASE)
_DTYPE_KINDS = "biuf"
#: floats with more bytes differ between platforms
_MAX_ITEM_BYTES = 8
_DTYPE_EXPECTED = "a numpy boolean, whole-number or floating-point type, e.g. uint8, float32 or >f4"

#: characters of a shape or a dtype; the parsed forms are cached, since many images in a row have the same
_MAX_TEXT_LENGTH = 100


def parse_shape(value: object) -> tuple[int, ...]:
    """Parse a shape from "32,32,3", "32x32x3", "(32, 32, 3)" or a list of numbers: 1 to 4 positive whole numbers.

    Raises:
        InvalidMetadata: for any other value.
    """
    numbers: Sequence[object] = value if isinstance(value, list | tuple) and len(value) <= _MAX_TEXT_LENGTH else ()
    if isinstance(value, str) and len(value) <= _MAX_TEXT_LENGTH:
        numbers = _numbers_in(value)
    lengths = tuple(n for n in numbers if type(n) is int and 0 < n <= _MAX_LENGTH)
    if not 1 <= len(lengths) <= _MAX_DIMENSIONS or len(lengths) != len(numbers):
        raise InvalidMetadata(f"{shown(value)} is not a shape", field="metadata.shape", expected=_SHAPE_EXPECTED)
    return lengths


def parse_dtype(value: object) -> np.dtype[Any]:
    """Parse a numpy dtype from its name or its string with a byte order: booleans, whole numbers and floats of at most 8 bytes.

    Raises:
        InvalidMetadata: for any other value, e.g. objects, strings, complex numbers, records and dates.
    """
    dtype = _dtype_named(value) if isinstance(value, str) and len(value) <= _MAX_TEXT_LENGTH else None
    if dtype is None or not _is_number(dtype):
        detail = f"{shown(value)} is not a dtype that images can have"
        raise InvalidMetadata(detail, field="metadata.dtype", expected=_DTYPE_EXPECTED)
    return dtype


def image_lengths(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return H,W or H,W,C: `shape` without a leading batch dimension of 1. Raises InvalidMetadata for other shapes."""
    image = shape[1:] if len(shape) == _MAX_DIMENSIONS and shape[0] == 1 else shape
    if len(image) not in (2, 3):
        raise InvalidMetadata(
            f"the shape {joined(shape)} is not that of one image",
            field="metadata.shape",
            expected="height,width or height,width,channels",
        )
    return image


def joined(shape: tuple[int, ...]) -> str:
    return ",".join(map(str, shape))


@lru_cache
def _numbers_in(text: str) -> tuple[int, ...]:
    """Return the lengths in the text of a shape; none if it is no shape."""
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


def _is_number(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in _DTYPE_KINDS and dtype.itemsize <= _MAX_ITEM_BYTES
