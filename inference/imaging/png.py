"""Chunks of a PNG file (ISO/IEC 15948, chapters 5 and 11) that concern its pixels.

Pillow reads every chunk in Python, and refuses a file if a text has a wrong checksum or is too large when decompressed: so
the decoder gets no texts. Its checks of the header and the palette still apply; zlib checks the pixels. If rows are missing
in the file, the decoder leaves them at 0 without a warning.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from PIL.PngImagePlugin import PngImageFile

from inference.imaging.picture_file import PictureFile, too_complex, truncated

#: chunks without pixels: far more than editors write, and skipped in 10 ms
_MAX_OTHER_CHUNKS = 10_000
#: all chunks: a file of 32 MB reaches this limit with 335 bytes per chunk; encoders write 4 KB and more
_MAX_CHUNKS = 100_000
#: size of a decompressed text that may hold the orientation
_MAX_PROFILE_BYTES = 2**20

_SIGNATURE_BYTES = 8
_IHDR = struct.Struct(">8x4x4sIIBBxxB")
_CHUNK = struct.Struct(">I4s")
_IEND = bytes.fromhex("0000000049454e44ae426082")

_GREY, _RGB, _INDEXED = 0, 2, 3
#: samples per pixel by colour type
_SAMPLES = {_GREY: 1, _RGB: 3, _INDEXED: 1, 4: 2, 6: 4}
#: passes of an interlaced picture: first column, first row, and the steps to the next column and row
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_DECOMPRESSED_AT_ONCE = 2**16
#: length of tRNS: one colour, or an alpha for each colour of the palette; other colour types have alpha in their pixels
_TRNS_BYTES = {_GREY: range(2, 3), _RGB: range(6, 7), _INDEXED: range(1, 257)}

_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
#: texts that may hold the orientation
_EXIF_PROFILE = b"Raw profile type exif\0"
_XMP = b"XML:com.adobe.xmp\0"


class _Chunk:
    """One chunk in a file; its bytes are read on demand."""

    __slots__ = ("end", "kind", "start", "view")

    def __init__(self, view: memoryview, start: int, length: int, kind: bytes) -> None:
        self.view = view
        self.kind = kind
        self.start = start
        self.end = start + length + 12

    @property
    def body(self) -> memoryview:
        return self.view[self.start + 8 : self.end - 4]

    @property
    def is_intact(self) -> bool:
        """Whether the chunk is complete and its checksum is right."""
        if self.end > len(self.view):
            return False
        checksum = zlib.crc32(self.view[self.start + 4 : self.end - 4])
        return self.view[self.end - 4 : self.end] == checksum.to_bytes(4, "big")


def read_png(data: bytes | memoryview, *, pixels: bool) -> PictureFile | None:
    """Extract IHDR, PLTE, tRNS and the pixels from the file; None if its header is broken.

    Args:
        data: the file.
        pixels: whether the result includes the pixels; without them the file is read up to the first pixel chunk.

    Raises:
        InvalidImage: there are too many chunks.
    """
    view = memoryview(data)
    kind, width, height, _, colour, _ = _IHDR.unpack_from(view)
    if kind != b"IHDR":
        return None
    chunks = _chunks(view)
    header, profiles = [next(chunks)], dict[bytes, _Chunk]()
    for chunk in chunks:
        if chunk.kind == b"IDAT":
            break
        _keep_profile(profiles, chunk)
        if _concerns_pixels(chunk, colour) and all(kept.kind != chunk.kind for kept in header):
            header.append(chunk)
    else:
        return None
    head = [view[:_SIGNATURE_BYTES], *(view[kept.start : kept.end] for kept in header)]
    if not pixels:
        return PictureFile((width, height), b"".join([*head, view[chunk.start : chunk.start + 8]]))
    body = _pixels(view, chunk, chunks, profiles)
    return PictureFile((width, height), b"".join([*head, *body]), _metadata(profiles))


def may_lack_rows(picture: PngImageFile) -> bool:
    """Whether the last rows of a loaded picture may be missing: it has all rows if its last row is not all 0."""
    if picture.info.get("interlace"):
        return True
    # the last pixel decides for most pictures
    last_pixel = picture.getpixel((picture.width - 1, picture.height - 1))
    if last_pixel != 0 and last_pixel != (0,) * len(picture.getbands()):
        return False
    last_row = picture.crop((0, picture.height - 1, picture.width, picture.height))
    return last_row.getbbox(alpha_only=False) is None


def check_rows(file: PictureFile) -> None:
    """Decompress the pixels and check that no row is missing.

    Raises:
        InvalidImage: rows are missing.
    """
    view = memoryview(file.encoded)
    missing = _decompressed_bytes(view)
    decompressor = zlib.decompressobj()
    for chunk in _chunks(view):
        piece = bytes(chunk.body) if chunk.kind == b"IDAT" else b""
        while piece and missing > 0:
            missing -= len(decompressor.decompress(piece, _DECOMPRESSED_AT_ONCE))
            piece = decompressor.unconsumed_tail
    if missing > len(decompressor.flush()):
        raise truncated("PNG")


def _decompressed_bytes(view: memoryview) -> int:
    _, width, height, depth, colour, is_interlaced = _IHDR.unpack_from(view)
    bits = depth * _SAMPLES[colour]
    passes = [
        (-(-(width - left) // across), -(-(height - top) // down))
        for left, top, across, down in (_PASSES if is_interlaced else ((0, 0, 1, 1),))
    ]
    # each row begins with a filter byte; a pass without columns has no rows
    return sum(rows * (1 + (columns * bits + 7) // 8) for columns, rows in passes if columns > 0)


def _chunks(view: memoryview) -> Iterator[_Chunk]:
    """Yield chunks up to the end, or to bytes that are not a chunk.

    Raises:
        InvalidImage: there are more of them than `_MAX_OTHER_CHUNKS` and `_MAX_CHUNKS` allow.
    """
    position, others = _SIGNATURE_BYTES, 0
    for _ in range(_MAX_CHUNKS):
        if position + _CHUNK.size > len(view):
            return
        length, kind = _CHUNK.unpack_from(view, position)
        others += kind != b"IDAT"
        if not kind.isalpha():
            return
        if others > _MAX_OTHER_CHUNKS:
            raise too_complex(f"a PNG image with more than {_MAX_OTHER_CHUNKS} chunks without pixels")
        chunk = _Chunk(view, position, length, kind)
        yield chunk
        position = chunk.end
    raise too_complex(f"a PNG image with more than {_MAX_CHUNKS} chunks")


def _concerns_pixels(chunk: _Chunk, colour: int) -> bool:
    if chunk.kind == b"PLTE":
        # for the other colour types a palette is a suggestion for screens of 256 colours
        return colour == _INDEXED
    # like libpng: a damaged chunk, or one with a wrong length for the colour type, is skipped
    return chunk.kind == b"tRNS" and chunk.is_intact and len(chunk.body) in _TRNS_BYTES.get(colour, ())


def _pixels(
    view: memoryview, first: _Chunk, following: Iterator[_Chunk], profiles: dict[bytes, _Chunk]
) -> Iterator[memoryview | bytes]:
    """Yield the IDAT chunks in pieces as long as possible, and the end; collect the profiles that come after them."""
    start, end = first.start, first.end
    for chunk in following:
        if chunk.kind == b"IEND":
            break
        if chunk.kind != b"IDAT":
            _keep_profile(profiles, chunk)
            continue
        if chunk.start != end:
            yield view[start:end]
            start = chunk.start
        end = chunk.end
    yield view[start:end]
    if end <= len(view):
        # otherwise it would be read as pixels
        yield _IEND


def _keep_profile(profiles: dict[bytes, _Chunk], chunk: _Chunk) -> None:
    if chunk.kind == b"eXIf":
        profiles[chunk.kind] = chunk
    elif chunk.kind in _TEXT_CHUNKS:
        body = chunk.body
        for keyword in (_EXIF_PROFILE, _XMP):
            if body[: len(keyword)] == keyword:
                profiles[keyword] = chunk


def _metadata(profiles: dict[bytes, _Chunk]) -> dict[str, bytes]:
    found = {}
    intact = {name: chunk for name, chunk in profiles.items() if chunk.is_intact}
    if _XMP in intact:
        found["xmp"] = _text(intact[_XMP], len(_XMP))
    if b"eXIf" in intact:
        found["exif"] = bytes(intact[b"eXIf"].body)
    elif _EXIF_PROFILE in intact:
        found["exif"] = _from_hexadecimal(_text(intact[_EXIF_PROFILE], len(_EXIF_PROFILE)))
    return found


def _text(chunk: _Chunk, at: int) -> bytes:
    """Read the text after the keyword; empty if it is broken or larger than `_MAX_PROFILE_BYTES` when decompressed."""
    text = bytes(chunk.body[at:])
    is_compressed = chunk.kind == b"zTXt"
    if chunk.kind == b"zTXt":
        text = text[1:]
    elif chunk.kind == b"iTXt":
        is_compressed = text[:1] == b"\1"
        # two bytes, then the language and the translated keyword
        text = text[2:].split(b"\0", 2)[-1]
    if not is_compressed:
        return text
    decompressor = zlib.decompressobj()
    try:
        decompressed = decompressor.decompress(text, _MAX_PROFILE_BYTES)
    except zlib.error:
        return b""
    return b"" if decompressor.unconsumed_tail else decompressed


def _from_hexadecimal(profile: bytes) -> bytes:
    """Decode ImageMagick's form: an empty line, the name and the length, then digits."""
    try:
        return bytes.fromhex("".join(profile.decode("ascii").split("\n")[3:]))
    except ValueError:
        return b""
