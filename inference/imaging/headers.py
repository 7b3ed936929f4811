"""Width and height of PNG, JPEG and WebP files from their first bytes, and a bound on the work they ask for.

Pillow reads every chunk in Python and allocates a WebP's canvas on opening, and a JPEG may repeat its scans: without
these bounds 10 MB keep the API busy for seconds, and 125 KB a worker for 11 s at 16 megapixels. Formats: PNG
(ISO/IEC 15948) chapter 5; JPEG (ITU-T T.81) annex B; WebP (RFC 9649) chapter 2.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from inference.errors import InvalidImage
from inference.imaging.formats import ImageFormat

Size = tuple[int, int]

#: far above what cameras and editors write
_MAX_SEGMENTS = 1000
#: a progressive JPEG has about 10 scans
_MAX_JPEG_SCANS = 100
_MAX_PNG_CHUNKS = 250
#: bytes between a JPEG's segments before its first scan: padding, or a camera's mistake
_MAX_JUNK_BYTES = 65_536

_PNG_IHDR = struct.Struct(">8x4x4sII")
_PNG_CHUNK = struct.Struct(">I4s")
_PNG_CHUNK_OVERHEAD_BYTES = 12

#: the next marker: neither a stuffed byte (FF 00), a restart (FF D0 to FF D7) nor padding (FF FF)
_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_JPEG_SOF = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_JPEG_SOS, _JPEG_EOI = 0xDA, 0xD9
_JPEG_WITHOUT_LENGTH = {0x01, 0xD8}


def picture_size(data: bytes | memoryview, image_format: ImageFormat) -> Size:
    """(width, height) as the header declares it; EXIF orientation is not applied.

    Raises:
        InvalidImage: the header is broken or asks for an unreasonable amount of work.
    """
    readers: dict[ImageFormat, Callable[[bytes | memoryview], Size | None]] = {
        ImageFormat.PNG: _png_size,
        ImageFormat.JPEG: _jpeg_size,
        ImageFormat.WEBP: _webp_size,
    }
    try:
        size = readers[image_format](data)
    except struct.error:
        size = None
    if size is None:
        raise InvalidImage(
            f"the header of the {image_format.label} image is broken",
            field="image",
            expected=f"a whole {image_format.label} file",
        )
    return size


def _png_size(data: bytes | memoryview) -> Size | None:
    kind, width, height = _PNG_IHDR.unpack_from(data)
    if kind != b"IHDR":
        return None
    position = 8
    for _ in range(_MAX_PNG_CHUNKS):
        length, kind = _PNG_CHUNK.unpack_from(data, position)
        if kind == b"IDAT":
            return width, height
        position += length + _PNG_CHUNK_OVERHEAD_BYTES
    raise _too_complex(f"a PNG image with more than {_MAX_PNG_CHUNKS} chunks before its pixels")


def _jpeg_size(data: bytes | memoryview) -> Size | None:
    size, scans, junk, position = None, 0, 0, 2
    for _ in range(_MAX_SEGMENTS):
        marker = _JPEG_MARKER.search(data, position)
        if marker is None or marker[0][1] == _JPEG_EOI:
            # without an end it is truncated, which decoding finds; without a scan there is nothing to decode
            return size if scans else None
        junk += 0 if scans else marker.start() - position
        kind, position = marker[0][1], marker.end()
        if kind in _JPEG_SOF and size is None:
            height, width = struct.unpack_from(">HH", data, position + 3)
            size = width, height
        scans += kind == _JPEG_SOS
        if junk > _MAX_JUNK_BYTES:
            return None
        if scans > _MAX_JPEG_SCANS:
            raise _too_complex(f"a JPEG image with more than {_MAX_JPEG_SCANS} scans")
        if kind not in _JPEG_WITHOUT_LENGTH:
            position += max(2, int.from_bytes(data[position : position + 2], "big"))
    raise _too_complex(f"a JPEG image with more than {_MAX_SEGMENTS} segments")


def _webp_size(data: bytes | memoryview) -> Size | None:
    head = bytes(data[:30])
    kind = head[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(head[i : i + 3], "little") + 1 for i in (24, 27))
        return width, height
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", head, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _too_complex(what: str) -> InvalidImage:
    return InvalidImage(f"{what} is not decoded", field="image", expected="an image as cameras and editors write it")
