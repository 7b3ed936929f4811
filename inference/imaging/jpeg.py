"""Segments of a JPEG file (ITU-T T.81, annex B) that concern its pixels, and the check that its scans are complete.

Pillow refuses a file if a profile or a preview is broken, or if only the end marker is missing: so it gets neither
profiles nor comments, and always an end marker. The decoder fills missing pixels without a warning, with grey or with the
colour that zero bits stand for. If the file has no end marker, has many zero bytes before it, or has a picture that
`ends_in_grey`, `check_scans` finds out whether pixels are missing.
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
from inference.runtime.gevent import yield_to_other_greenlets

#: far more than cameras and editors write
_MAX_SEGMENTS = 10_000
#: a progressive JPEG has about 10 scans
_MAX_SCANS = 100
#: bytes between the segments before the first scan: padding, or a camera's mistake
_MAX_JUNK_BYTES = 65_536
#: times that a file with possibly missing pixels is decoded: up to four to check it, and one for the picture
_DECODINGS = 5
#: share of the pixels that may be missing at the end, which the last bytes of a whole file contain
_MAX_MISSING = 0.02

#: the next marker: neither a stuffed byte (FF 00), a restart (FF D0 to FF D7) nor padding (FF FF)
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_MARKER_BYTES = 2
#: bytes that are searched for a marker before other greenlets run
_SEARCHED_BYTES = 2**21
_SOF = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_SOI, _EOI, _SOS, _DRI = 0xD8, 0xD9, 0xDA, 0xDD
_WITHOUT_LENGTH = {0x01, _SOI}
#: APP0 to APP15, extensions (JPG0 to JPG13) and comments
_ANCILLARY = {*range(0xE0, 0xFF)}
#: segments that tell the decoder the colour space: their first bytes, and their minimum length with the length field
_COLOUR_SPACE = {0xE0: (b"JFIF\0", 16), 0xEE: (b"Adobe", 14)}
_APP1 = 0xE1
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_END = bytes([0xFF, _EOI])
_COEFFICIENTS = 64
#: a broken download may have these in place of its last part; a picture of one colour may have as many
_ZEROS = bytes(64)
#: columns of the last row at half size that are compared: in a part of one colour, `_ZEROS` stands for more columns
_LAST_COLUMNS = 32
#: zeros at the end that are replaced: enough to be visible in the picture
_REPLACED_BYTES = 8
#: maximum size of a picture that is searched for missing parts; it is reduced by one of the scales below
_CHECKED_PIXELS = 2**20
_CHECK_SCALES = (2, 4, 8)
#: memory that the check needs: two pictures and their difference, for images up to 50 megapixels
MAX_CHECK_BYTES = 2**24
#: values that the decoder gives blocks without data, with the rounding of colour conversions
_FILLED_GREY = range(126, 131)


class _Segment:
    """A marker and its parameters, up to the position at which the search for the next marker begins."""

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
        """The parameters without their length field; shorter if the file ends early."""
        return self.view[self.start + 4 : self.end]

    @property
    def concerns_pixels(self) -> bool:
        if self.kind in _ANCILLARY:
            begins, least_bytes = _COLOUR_SPACE.get(self.kind, (b"", 0))
            return bool(begins) and self.body[: len(begins)] == begins and self.end - self.start >= least_bytes + 2
        return self.kind not in _WITHOUT_LENGTH


def read_jpeg(data: bytes | memoryview, *, pixels: bool) -> PictureFile | None:
    """Extract tables, frame and scans of the first picture in the file; None if its header is broken.

    Args:
        data: the file.
        pixels: whether the result includes the pixels; without them it ends at their first byte.

    Raises:
        InvalidImage: there are too many segments or scans.
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
    """Whether the last row has the grey of missing data; some complete pictures have it too."""
    last_pixel = picture.getpixel((picture.width - 1, picture.height - 1))
    # the last pixel decides for most pictures
    if (last_pixel[0] if isinstance(last_pixel, tuple) else last_pixel) not in _FILLED_GREY:
        return False
    values = np.asarray(_crop_last_row(picture, picture.width))
    return bool(values.min() in _FILLED_GREY and values.max() in _FILLED_GREY)


def check_scans(file: PictureFile) -> None:
    """Check that no pixels are missing at the end of a file, which takes as long as decoding it two to four times.

    Raises:
        InvalidImage: more than `_MAX_MISSING` of the picture is missing, or it has too many scans to be decoded so often.
    """
    segments = list(_segments(memoryview(file.encoded)))
    frame = next(segment for segment in segments if segment.kind in _SOF)
    scans = [segment for segment in segments if segment.kind == _SOS]
    if not _is_coded(frame, scans):
        raise truncated("JPEG")
    if len(scans) > _MAX_SCANS // _DECODINGS:
        raise too_complex(f"a JPEG image that may be truncated and has more than {_MAX_SCANS // _DECODINGS} scans")
    # FF before a marker is padding; before other bytes it would be the start of a marker
    cut = file.encoded.removesuffix(_END).rstrip(b"\xff")
    if cut.endswith(_ZEROS) and not _ends_in_one_colour(cut):
        header = cut[: scans[-1].end]
        cut = header + cut[len(header) :].rstrip(b"\0").rstrip(b"\xff")
    if _changed_share(cut, cut + _fill(cut, file.size, segments)) > _MAX_MISSING:
        raise truncated("JPEG")


def _ends_in_one_colour(encoded: bytes) -> bool:
    """Whether the zero bytes at the end stand for pixels of one colour; if data are missing, they give a pattern."""
    picture = _decode(encoded + _END)
    low, high = np.array(_crop_last_row(picture, _LAST_COLUMNS).getextrema()).reshape(-1, 2).T
    return bool((low == high).all()) and _changed_share(encoded, encoded[:-_REPLACED_BYTES] + _random_bytes(_REPLACED_BYTES)) > 0


def _crop_last_row(picture: Image.Image, columns: int) -> Image.Image:
    return picture.crop((max(0, picture.width - columns), picture.height - 1, picture.width, picture.height))


def _changed_share(before: bytes, after: bytes) -> float:
    """Compute the share of the pixels that differ between two files without their end markers."""
    pictures = _decode(before + _END), _decode(after + _END)
    difference = np.asarray(ImageChops.difference(*pictures)).reshape(pictures[0].height, pictures[0].width, -1)
    return float(difference.any(-1).mean())


def _segments(view: memoryview) -> Iterator[_Segment]:
    """Yield the segments up to the end marker, or to the last segment if there is no end marker.

    Raises:
        InvalidImage: there are more segments, scans or bytes between them than the constants above allow.
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
        yield_to_other_greenlets()
    return None


def _metadata(header: Sequence[_Segment]) -> dict[str, bytes]:
    found = {}
    bodies = [segment.body for segment in header if segment.kind == _APP1]
    # data that do not fit into one segment continue in the next
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
        # in a sequential frame these fields are constant, and decoders do not read them
        first, last, approximation = body[2 * body[0] + 1 : 2 * body[0] + 4] if frame.kind in _PROGRESSIVE else (0, 63, 0)
        for component in set(body[1 : 2 * body[0] + 1 : 2]) & missing.keys():
            coded = range(first, min(last + 1, _COEFFICIENTS))
            missing[component][first : coded.stop] = [approximation & 15 > 0] * len(coded)
    return not any(any(coefficients) for coefficients in missing.values())


def _decode(encoded: bytes) -> Image.Image:
    """Decode at half the width and height, or less for a large picture, to save memory; raises the errors of Pillow."""
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
    """Create bytes that look like a scan, in intervals with the restart markers that come next."""
    pixels = size[0] * size[1]
    intervals = [int.from_bytes(segment.body[:2], "big") for segment in segments if segment.kind == _DRI]
    if not intervals or not intervals[-1]:
        return _random_bytes(pixels // 8 + 1024)
    # a minimum coded unit (MCU) has 64 pixels or more, and rarely more bytes than this
    piece = _random_bytes(48 * intervals[-1])
    scan = encoded[encoded.rfind(bytes([0xFF, _SOS])) :]
    _, last = max((scan.rfind(bytes([0xFF, marker])), marker) for marker in range(0xD0, 0xD8))
    restarts = (bytes([0xFF, 0xD0 + (last + 1 + i) % 8]) + piece for i in range(8))
    return piece + b"".join(restarts) * (pixels // (64 * 8 * intervals[-1]) + 1)


def _random_bytes(count: int) -> bytes:
    return np.random.default_rng(0).bytes(count).replace(b"\xff", b"\x7f")
