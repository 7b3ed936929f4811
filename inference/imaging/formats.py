"""The formats that are read, how they are told apart, and what is refused by name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from inference.errors import PayloadTooLarge, UnsupportedImageType, shown_name

ACCEPTED = "a PNG, JPEG, WebP or .npy file, or raw bytes with shape and dtype"

_SNIFFED_BYTES = 16


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
    head = bytes(data[:_SNIFFED_BYTES])
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return ImageFormat.WEBP
    return next((found for magic, found in _MAGIC if head.startswith(magic)), None)


_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", ImageFormat.PNG),
    (b"\xff\xd8\xff", ImageFormat.JPEG),
    (b"\x93NUMPY", ImageFormat.NPY),
)

#: what people send instead, by its first bytes, so that the answer can say what it was
_REFUSED_MAGIC = (
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"8BPS", "Photoshop"),
    (b"%PDF-", "PDF"),
    (b"PK\x03\x04", "ZIP or .npz"),
)

_REFUSED_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"hevc": "HEIC",
    b"mif1": "HEIF",
    b"msf1": "HEIF",
}

#: media types that promise one of the accepted formats, or nothing
_ACCEPTED_TYPES = {
    "",
    "application/octet-stream",
    "application/x-npy",
    "application/x-numpy",
    "binary/octet-stream",
    "image/apng",
    "image/jpeg",
    "image/jpg",
    "image/png",
    "image/webp",
}


def refused_type(data: bytes, content_type: str | None) -> UnsupportedImageType | None:
    """The refusal for bytes of no known format, when they, or their media type, are of something else by name."""
    media_type = (content_type or "").split(";")[0].strip().lower()
    name = _refused_name(bytes(data[:_SNIFFED_BYTES]))
    if name is not None:
        detail = f"{name} files are not accepted"
    elif media_type not in _ACCEPTED_TYPES:
        detail = f"{shown_name(media_type)} is not accepted"
    else:
        return None
    return UnsupportedImageType(detail, field="image", expected=ACCEPTED)


def _refused_name(head: bytes) -> str | None:
    if head[4:8] == b"ftyp":
        return _REFUSED_BRANDS.get(head[8:12])
    # "BM" alone is too likely at the start of raw bytes; a BMP has four reserved zero bytes too
    if head.startswith(b"BM") and head[6:10] == bytes(4):
        return "BMP"
    return next((name for magic, name in _REFUSED_MAGIC if head.startswith(magic)), None)
