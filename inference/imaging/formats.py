"""Supported formats, their detection by magic bytes, and the limit on pixels."""

from __future__ import annotations

from dataclasses import dataclass

from inference.domain import ImageFormat
from inference.errors import PayloadTooLarge

ACCEPTED = "a PNG, JPEG, WebP or .npy file, or raw bytes with shape and dtype"

SNIFFED_BYTES = 16


@dataclass(frozen=True)
class ImageLimits:
    #: height times width of an encoded image, or of an array that holds pixels
    max_pixels: int

    def check(self, width: int, height: int) -> None:
        """Raise `PayloadTooLarge` if a picture of this size has too many pixels."""
        pixels = width * height
        if pixels > self.max_pixels:
            raise PayloadTooLarge(
                f"the image has {width} x {height} = {pixels} pixels, more than the {self.max_pixels} allowed",
                field="image",
                expected=f"at most {self.max_pixels} pixels",
            )


def sniff(data: bytes | memoryview) -> ImageFormat | None:
    """Find the format by its magic bytes; None if it is not supported."""
    head = bytes(data[:SNIFFED_BYTES])
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return ImageFormat.WEBP
    return next((found for magic, found in _MAGIC if head.startswith(magic)), None)


_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", ImageFormat.PNG),
    (b"\xff\xd8\xff", ImageFormat.JPEG),
    (b"\x93NUMPY", ImageFormat.NPY),
)
