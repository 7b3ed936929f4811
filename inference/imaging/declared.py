"""Comparison of a given shape or dtype with the file's own: if they differ, the client has sent the wrong file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from inference.array_metadata import image_lengths, joined, parse_dtype, parse_shape
from inference.domain import ImageFormat
from inference.errors import InvalidMetadata
from inference.imaging.arrays import ArrayLayout
from inference.imaging.picture_file import Size

_CHANNELS_OF_PICTURES = (1, 3, 4)


def check_array_metadata(shape: object | None, dtype: object | None, layout: ArrayLayout) -> None:
    """Compare the metadata with a .npy file; H,W is enough as a shape, and a dtype needs no byte order.

    Raises:
        InvalidMetadata: the shape or dtype is invalid, or differs from the file's.
    """
    if shape is not None:
        lengths = image_lengths(parse_shape(shape))
        has_leading_one = layout.shape[0] == 1  # one channel, of a model that takes it first
        if lengths != layout.shape[: len(lengths)] and not (has_leading_one and lengths == layout.shape[1:]):
            raise _disagreement("shape", joined(lengths), ImageFormat.NPY, joined(layout.shape))
    _check_dtype(dtype, ImageFormat.NPY, layout.dtype)


def check_picture_metadata(
    shape: object | None, dtype: object | None, image_format: ImageFormat, size: Size, is_on_its_side: Callable[[], bool]
) -> None:
    """Compare the metadata with a PNG, JPEG or WebP file; any number of channels that pictures have is accepted.

    Args:
        shape: H,W or H,W,C, before or after the orientation is applied.
        dtype: must be uint8, the type of every picture's pixels.
        image_format: the format of the file.
        size: its width and height, before the orientation is applied.
        is_on_its_side: whether the orientation swaps height and width; called only if the answer matters.

    Raises:
        InvalidMetadata: the shape or dtype is invalid, or differs from the file's.
    """
    if shape is not None:
        height, width, *rest = lengths = image_lengths(parse_shape(shape))
        agrees = (width, height) == size or ((height, width) == size and is_on_its_side())
        if not agrees or not all(channels in _CHANNELS_OF_PICTURES for channels in rest):
            raise _disagreement("shape", joined(lengths), image_format, joined((size[1], size[0])))
    _check_dtype(dtype, image_format, np.dtype(np.uint8))


def _check_dtype(dtype: object | None, image_format: ImageFormat, own: np.dtype[Any]) -> None:
    if dtype is not None and (given := parse_dtype(dtype)) not in (own, own.newbyteorder("=")):
        raise _disagreement("dtype", str(given), image_format, str(own))


def _disagreement(name: str, given: str, image_format: ImageFormat, own: str) -> InvalidMetadata:
    return InvalidMetadata(
        f"the {name} {given} is not that of the {image_format.label} file, which is {own}",
        field=f"metadata.{name}",
        expected=f"{own}, or no {name}: the file says it itself",
    )
