"""The formats that are read, and how they are told apart."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from inference.errors import PayloadTooLarge

ACCEPTED = "a PNG, JPEG, WebP or .npy file, or raw bytes with shape and dtype"

SNIFFED_BYTES = 16


class ImageFormat(StrEnum):
    RAW = "raw"
    NPY = "npy"
    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"

    @property
    def label(self) -> str:
        """The name that a reader knows it by."""
        return {"raw": "raw", "npy": ".npy", "png": "PNG", "jpeg": "JPEG", "webp": "WebP"}[self.value]


@dataclass(frozen=True)
class ImageLimits:
    #: height times width of an encoded image, or of an array that is taken as pixels
    max_pixels: int

    def check(self, width: int, height: int) -> None:
        """Raise `PayloadTooLarge` when a picture of this size has too many pixels."""
        pixels = width * height
        if pixels > self.max_pixels:
            raise PayloadTooLarge(
                f"the image has {width} x {height} = {pixels} pixels, more than the {self.max_pixels} allowed",
                field="image",
                expected=f"at most {self.max_pixels} pixels",
            )


@dataclass
class ImageHeader:
    """What the door learned about an image; travels in the queue message as plain data, which orjson makes of it."""

    format: ImageFormat
    #: (H, W, C) of a raw array, None for the formats that say it themselves
    shape: tuple[int, ...] | None = None
    #: numpy's canonical string with the byte order, e.g. ``<f4``, of a raw array
    dtype: str | None = None

    @staticmethod
    def from_dict(data: dict[str, Any]) -> ImageHeader:
        shape = data.get("shape")
        return ImageHeader(ImageFormat(data["format"]), None if shape is None else tuple(shape), data.get("dtype"))


def sniff(data: bytes | memoryview) -> ImageFormat | None:
    """The format by its magic bytes, None when they are of none that is read here."""
    head = bytes(data[:SNIFFED_BYTES])
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return ImageFormat.WEBP
    return next((found for magic, found in _MAGIC if head.startswith(magic)), None)


_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", ImageFormat.PNG),
    (b"\xff\xd8\xff", ImageFormat.JPEG),
    (b"\x93NUMPY", ImageFormat.NPY),
)
