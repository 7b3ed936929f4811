"""Images as callers have them."""

from __future__ import annotations

import os
from typing import Any, Protocol, Union


class ReadableFile(Protocol):
    """Open file in binary mode."""

    def read(self) -> bytes:
        """Read to the end."""


class Picture(Protocol):
    """Picture of Pillow."""

    @property
    def mode(self) -> str:
        """Kind of pixels."""

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:  # noqa: A002 - Pillow's name
        """Write a file."""


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
