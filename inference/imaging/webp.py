"""Chunks of a WebP file (RFC 9649, chapter 2) that concern the pixels of its first frame.

libwebp refuses a file with a truncated profile or a wrong total size: so it gets neither. It decodes zeros, which a broken
download may have in place of its last part, as pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from inference.imaging.picture_file import PictureFile, Size, too_complex, truncated

#: a chunk for each frame of an animation, and about six more
_MAX_CHUNKS = 10_000

#: zero bytes at the end of the pixels: fewer may be a part of one colour, which has 1 byte for 250 pixels or more
_LEAST_ZEROS = 64
_MAX_SHARE_OF_ZEROS = 0.2
_PIXELS_OF_A_ZERO = 100

_CHUNK = struct.Struct("<4sI")
_FIRST_CHUNK = 12
_PIXELS = (b"VP8 ", b"VP8L", b"ANMF")
_BEFORE_PIXELS = (b"VP8X", b"ANIM", b"ALPH")
#: chunks that may come after the pixels: Pillow's name, and the flag in the VP8X chunk
_METADATA = {b"EXIF": ("exif", 0x08), b"XMP ": ("xmp", 0x04)}
_FLAGS_AT = 8
_ANIMATION, _ALPHA = 0x02, 0x10


def read_webp(data: bytes | memoryview) -> PictureFile | None:
    """Extract the first frame from the file, without profiles and metadata; None if its header is broken.

    Raises:
        InvalidImage: there are too many chunks, or zeros in place of pixels.
    """
    view = memoryview(data)
    head = bytes(view[:30])
    size = _size(head)
    if size is None:
        return None
    flags = head[_FIRST_CHUNK + _FLAGS_AT] if head[12:16] == b"VP8X" else 0
    kept: dict[bytes, bytes] = {}
    metadata: dict[str, bytes] = {}
    for kind, chunk in _whole_chunks(view):
        if kind in _METADATA and flags & _METADATA[kind][1]:
            metadata.setdefault(_METADATA[kind][0], bytes(chunk[_CHUNK.size :]))
        elif kind in _BEFORE_PIXELS + _PIXELS and not any(pixels in kept for pixels in _PIXELS):
            if _ends_in_zeros(chunk, size):
                raise truncated("WebP")
            kept.setdefault(kind, bytes(chunk) + bytes(len(chunk) % 2))
    # without pixels, the decoder's error names the fault, after the check of the size
    is_whole = any(pixels in kept for pixels in _PIXELS)
    return PictureFile(size, _file(kept) if is_whole else bytes(view), metadata)


def _whole_chunks(view: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the chunks, each with its header, up to the end or to a truncated chunk.

    Raises:
        InvalidImage: there are too many chunks.
    """
    position = _FIRST_CHUNK
    for _ in range(_MAX_CHUNKS):
        if position + _CHUNK.size > len(view):
            return
        kind, length = _CHUNK.unpack_from(view, position)
        end = position + _CHUNK.size + length
        if end > len(view):
            return
        yield kind, view[position:end]
        position = end + length % 2
    raise too_complex(f"a WebP image with more than {_MAX_CHUNKS} chunks")


def _ends_in_zeros(chunk: memoryview, size: Size) -> bool:
    if bytes(chunk[-_LEAST_ZEROS:]).strip(b"\0"):
        return False
    zeros = max(int(len(chunk) * _MAX_SHARE_OF_ZEROS), size[0] * size[1] // _PIXELS_OF_A_ZERO)
    return zeros < len(chunk) and not bytes(chunk[-zeros:]).strip(b"\0")


def _file(kept: dict[bytes, bytes]) -> bytes:
    if b"VP8X" in kept:
        head = bytearray(kept[b"VP8X"])
        head[_FLAGS_AT] &= _ANIMATION | _ALPHA
        kept = kept | {b"VP8X": bytes(head)}
    body = b"WEBP" + b"".join(kept.values())
    return _CHUNK.pack(b"RIFF", len(body)) + body


def _size(head: bytes) -> Size | None:
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
