"""The segments of a JPEG file (ITU-T T.81, annex B) that concern its pixels, and whether its scans are whole.

Pillow refuses a file for a profile or a preview that is broken, and for the end marker alone: so it is handed neither
profiles nor comments, and always an end. The decoder fills what is missing without a word, with grey or with what zero
bits stand for. Where the file has no end of its own, has many zero bytes before it, or a picture that `ends_in_grey`,
`check_scans` finds out whether pixels are missing.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageChops
from PIL.JpegImagePlugin import JpegImageFile

from inference.imaging.picture_file import PictureFile, Size, too_complex, truncated
from inference.runtime.gevent import let_others_go_on

#: far above what cameras and editors write
_MAX_SEGMENTS = 10_000
#: a progressive JPEG has about 10 scans
_MAX_SCANS = 100
#: bytes between the segments before the first scan: padding, or a camera's mistake
_MAX_JUNK_BYTES = 65_536
#: of a file whose pixels may be missing: up to four to check it, and one for the picture
_DECODINGS = 5
#: share of the pixels that may be missing at the end: what goes with the last bytes
_MAX_MISSING = 0.02

#: the next marker: neither a stuffed byte (FF 00), a restart (FF D0 to FF D7) nor padding (FF FF)
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_MARKER_BYTES = 2
#: bytes that are searched for a marker until others have their turn
_SEARCHED_BYTES = 2**21
_SOF = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_SOI, _EOI, _SOS, _DRI = 0xD8, 0xD9, 0xDA, 0xDD
_WITHOUT_LENGTH = {0x01, _SOI}
#: APP0 to APP15, extensions (JPG0 to JPG13) and comments
_ANCILLARY = {*range(0xE0, 0xFF)}
#: what the decoder learns the colour space from: how the segment begins, and the least bytes it has with its length
_COLOUR_SPACE = {0xE0: (b"JFIF\0", 16), 0xEE: (b"Adobe", 14)}
_APP1 = 0xE1
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_END = bytes([0xFF, _EOI])
_COEFFICIENTS = 64
#: what a broken download may have in place of its last part; a picture of one colour may have as many
_ZEROS = bytes(64)
#: of the last row at half size: fewer than so many zeros stand for in a part of one colour
_LAST_COLUMNS = 32
#: of the zeros at the end: enough to be seen in the picture
_REPLACED_BYTES = 8
#: of a picture that is looked through for missing parts; it is made smaller by one of these
_CHECKED_PIXELS = 2**20
_CHECK_SCALES = (2, 4, 8)
#: memory that this takes: two pictures and their difference, up to 50 megapixels
MAX_CHECK_BYTES = 2**24
#: what the decoder makes of blocks without data, with the rounding of colour conversions
_FILLED_GREY = range(126, 131)


class _Segment:
    """A marker and its parameters, up to where the next marker is looked for."""

    __slots__ = ("end", "kind", "start", "view")

    def __init__(self, view: memoryview, marker: re.Match[bytes]) -> None:
        self.view = view
        self.kind = marker[0][1]
        self.start = self.end = marker.start()
        self.end += 2
        if self.kind not in _WITHOUT_LENGTH and self.kind != _EOI:
            self.end += max(2, int.from_bytes(view[self.end : self.end + 2], "big"))

    @property
    def body(self) -> memoryview:
        """The parameters without their length; shorter where the file ends before."""
        return self.view[self.start + 4 : self.end]

    @property
    def concerns_pixels(self) -> bool:
        if self.kind in _ANCILLARY:
            begins, least_bytes = _COLOUR_SPACE.get(self.kind, (b"", 0))
            return bool(begins) and self.body[: len(begins)] == begins and self.end - self.start >= least_bytes + 2
        return self.kind not in _WITHOUT_LENGTH


def read_jpeg(data: bytes | memoryview, *, pixels: bool) -> PictureFile | None:
    """Take tables, frame and scans of the first picture in the file; None where its header is broken.

    Args:
        data: the file.
        pixels: whether they are wanted; without them the result ends where they begin.

    Raises:
        InvalidImage: too many segments or scans.
    """
    view = memoryview(data)
    segments = list(_segments(view))
    scans = [segment for segment in segments if segment.kind == _SOS]
    frame = next((segment for segment in segments if segment.kind in _SOF), None)
    if not scans or frame is None:
        return None
    height, width = struct.unpack_from(">HH", frame.body, 1)
    header = [segment for segment in segments if segment.start < scans[0].start]
    head = [view[:2], *(view[segment.start : segment.end] for segment in header if segment.concerns_pixels)]
    if not pixels:
        return PictureFile((width, height), b"".join([*head, view[scans[0].start : scans[0].end]]))
    has_end = segments[-1].kind == _EOI
    end = segments[-1].start if has_end else len(view)
    is_doubtful = not has_end or view[max(0, end - len(_ZEROS)) : end] == _ZEROS or not _is_coded(frame, scans)
    encoded = b"".join([*head, view[scans[0].start : end], _END])
    return PictureFile((width, height), encoded, _metadata(header), end_is_doubtful=is_doubtful)


def ends_in_grey(picture: Image.Image) -> bool:
    """Whether the last row is as the decoder fills it where data are missing; some pictures are so by themselves."""
    last_pixel = picture.getpixel((picture.width - 1, picture.height - 1))
    # most pictures are told by it alone
    if (last_pixel[0] if isinstance(last_pixel, tuple) else last_pixel) not in _FILLED_GREY:
        return False
    values = np.asarray(_crop_last_row(picture, picture.width))
    return bool(values.min() in _FILLED_GREY and values.max() in _FILLED_GREY)


def check_scans(file: PictureFile) -> None:
    """Find out whether pixels are missing at the end of a file, which takes as long as to decode it two to four times.

    Raises:
        InvalidImage: more than `_MAX_MISSING` of the picture is missing, or too many scans for so many times.
    """
    segments = list(_segments(memoryview(file.encoded)))
    frame = next(segment for segment in segments if segment.kind in _SOF)
    scans = [segment for segment in segments if segment.kind == _SOS]
    if not _is_coded(frame, scans):
        raise truncated("JPEG")
    if len(scans) > _MAX_SCANS // _DECODINGS:
        raise too_complex(f"a JPEG image that may be truncated and has more than {_MAX_SCANS // _DECODINGS} scans")
    # FF before a marker is padding; before other bytes it would be a marker itself
    cut = file.encoded.removesuffix(_END).rstrip(b"\xff")
    if cut.endswith(_ZEROS) and not _end_in_one_colour(cut):
        header = cut[: scans[-1].end]
        cut = header + cut[len(header) :].rstrip(b"\0").rstrip(b"\xff")
    if _share_changed(cut, cut + _fill(cut, file.size, segments)) > _MAX_MISSING:
        raise truncated("JPEG")


def _end_in_one_colour(encoded: bytes) -> bool:
    """Whether the zero bytes at the end stand for pixels of one colour; where data are missing they make a pattern."""
    picture = _decoded(encoded + _END)
    low, high = np.array(_crop_last_row(picture, _LAST_COLUMNS).getextrema()).reshape(-1, 2).T
    return bool((low == high).all()) and _share_changed(encoded, encoded[:-_REPLACED_BYTES] + _noise(_REPLACED_BYTES)) > 0


def _crop_last_row(picture: Image.Image, columns: int) -> Image.Image:
    return picture.crop((max(0, picture.width - columns), picture.height - 1, picture.width, picture.height))


def _share_changed(before: bytes, after: bytes) -> float:
    """The share of the pixels that differ between two files without their end markers."""
    pictures = _decoded(before + _END), _decoded(after + _END)
    difference = np.asarray(ImageChops.difference(*pictures)).reshape(pictures[0].height, pictures[0].width, -1)
    return float(difference.any(-1).mean())


def _segments(view: memoryview) -> Iterator[_Segment]:
    """Yield the segments up to the end marker, or the last where there is none.

    Raises:
        InvalidImage: more segments, scans or bytes between them than the constants above allow.
    """
    scans, junk, position = 0, 0, 2
    for _ in range(_MAX_SEGMENTS):
        limit = len(view) if scans else min(len(view), position + _MAX_JUNK_BYTES - junk + _MARKER_BYTES)
        marker = _next_marker(view, position, limit)
        if marker is None and limit < len(view):
            raise too_complex(f"a JPEG image with more than {_MAX_JUNK_BYTES} bytes between its segments")
        if marker is None:
            return
        junk += 0 if scans else marker.start() - position
        segment = _Segment(view, marker)
        yield segment
        if segment.kind == _EOI:
            return
        scans += segment.kind == _SOS
        if scans > _MAX_SCANS:
            raise too_complex(f"a JPEG image with more than {_MAX_SCANS} scans")
        position = segment.end
    raise too_complex(f"a JPEG image with more than {_MAX_SEGMENTS} segments")


def _next_marker(view: memoryview, position: int, limit: int) -> re.Match[bytes] | None:
    """Search up to `limit`, which takes a quarter of a second for 30 MB of stuffed bytes."""
    for start in range(position, limit, _SEARCHED_BYTES):
        marker = _MARKER.search(view, start, min(limit, start + _SEARCHED_BYTES + _MARKER_BYTES - 1))
        if marker is not None:
            return marker
        let_others_go_on()
    return None


def _metadata(header: Sequence[_Segment]) -> dict[str, bytes]:
    found = {}
    bodies = [segment.body for segment in header if segment.kind == _APP1]
    # data of more than a segment holds go on in the next
    if exif := b"".join(body[len(_EXIF) :] for body in bodies if body[: len(_EXIF)] == _EXIF):
        found["exif"] = exif
    if xmp := [body[len(_XMP) :] for body in bodies if body[: len(_XMP)] == _XMP]:
        found["xmp"] = bytes(xmp[-1])
    return found


def _is_coded(frame: _Segment, scans: Sequence[_Segment]) -> bool:
    """Whether the scans code every coefficient of every component to its last bit (T.81, B.2.3 and G.1.1)."""
    components = bytes(frame.body[6::3])[: frame.body[5]]
    missing = {component: [True] * _COEFFICIENTS for component in components}
    for scan in scans:
        body = bytes(scan.body)
        if not body or len(body) < 2 * body[0] + 4:
            continue
        # of a sequential frame they are always the same, and decoders do not read them
        first, last, approximation = body[2 * body[0] + 1 : 2 * body[0] + 4] if frame.kind in _PROGRESSIVE else (0, 63, 0)
        for component in set(body[1 : 2 * body[0] + 1 : 2]) & missing.keys():
            coded = range(first, min(last + 1, _COEFFICIENTS))
            missing[component][first : coded.stop] = [approximation & 15 > 0] * len(coded)
    return not any(any(coefficients) for coefficients in missing.values())


def _decoded(encoded: bytes) -> Image.Image:
    """Decode at half the width and height, or less of a large picture, for what memory it takes; raises what Pillow raises."""
    picture = JpegImageFile(io.BytesIO(encoded))
    scale = next(
        scale
        for scale in _CHECK_SCALES
        if picture.width * picture.height // scale**2 <= _CHECKED_PIXELS or scale == _CHECK_SCALES[-1]
    )
    picture.draft(None, (max(1, picture.width // scale), max(1, picture.height // scale)))
    picture.load()
    return picture


def _fill(encoded: bytes, size: Size, segments: Sequence[_Segment]) -> bytes:
    """Bytes as a scan might have them, in intervals with the restart markers that come next."""
    pixels = size[0] * size[1]
    intervals = [int.from_bytes(segment.body[:2], "big") for segment in segments if segment.kind == _DRI]
    if not intervals or not intervals[-1]:
        return _noise(pixels // 8 + 1024)
    # an MCU has 64 pixels or more, and hardly ever more bytes than this
    piece = _noise(48 * intervals[-1])
    scan = encoded[encoded.rfind(bytes([0xFF, _SOS])) :]
    _, last = max((scan.rfind(bytes([0xFF, marker])), marker) for marker in range(0xD0, 0xD8))
    restarts = (bytes([0xFF, 0xD0 + (last + 1 + i) % 8]) + piece for i in range(8))
    return piece + b"".join(restarts) * (pixels // (64 * 8 * intervals[-1]) + 1)


def _noise(count: int) -> bytes:
    return np.random.default_rng(0).bytes(count).replace(b"\xff", b"\x7f")
