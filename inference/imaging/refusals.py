"""Detection of files that are sent by mistake, by their first bytes, so that the error names their format.

Text transports (JSON, forms, shells) turn files into text: base64, a data URL, hexadecimal digits. Such text is decoded far
enough to see a file's first bytes, so that the bytes of an array are not mistaken for it.
"""

from __future__ import annotations

import base64
import re
from urllib.parse import unquote_to_bytes

from inference.errors import UnsupportedImageType, shown_name
from inference.imaging.formats import ACCEPTED, SNIFFED_BYTES, sniff

_REFUSED_MAGIC = (
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0\x08\0\0\0", "BigTIFF"),
    (b"MM\0+\0\x08\0\0", "BigTIFF"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51\0", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"8BPS", "Photoshop"),
    (b"%PDF-", "PDF"),
    (b"PK\x03\x04", "ZIP or .npz"),
    (b"\x1f\x8b\x08", "gzip-compressed"),
    (b"BZh", "bzip2-compressed"),
    (b"\xfd7zXZ\0", "xz-compressed"),
    (b"\x28\xb5\x2f\xfd", "Zstandard-compressed"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "RAR"),
    (b"\x89HDF\r\n\x1a\n", "HDF5"),
)

_REFUSED_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"heim": "HEIC",
    b"heis": "HEIC",
    b"hevc": "HEIC",
    b"hevx": "HEIC",
    b"hevm": "HEIC",
    b"hevs": "HEIC",
    b"mif1": "HEIF",
    b"msf1": "HEIF",
}

#: media types of the accepted formats, and media types that name no format
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


_HEAD_BYTES = 512
#: minimum number of different digits in the head of an array's base64 text
_LEAST_BASE64_DIGITS = 10
#: a shorter text of base64 or hexadecimal digits may be words or numbers
_LEAST_TEXT_LENGTH = 64
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be", b"\xef\xbb\xbf": "utf-8"}
_DATA_URL = re.compile(r"data:[\w.+/-]*[;,]|image/[\w.+-]+;base64,", re.IGNORECASE)
_ADDRESS = re.compile(r"(https?|s3|gs|ftp|file|blob)://", re.IGNORECASE)
_DOCUMENTS = (
    (re.compile(r"<(\?xml|!doctype|html|svg)", re.IGNORECASE), "HTML, SVG or XML"),
    (re.compile(r"\{\s*\"|\[\s*[\[{\"\d-]"), "JSON"),
)
#: quotes, Python's b'…', and JSON's escapes of line ends and slashes
_WRAPPING = re.compile(r"^b?[\"']|\\[nr]|\\(?=/)|\s")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
#: marks before and between the digits: 0x, \x, colons, commas and spaces
_HEXADECIMAL_MARKS = re.compile(r"0x|\\x|[\s:,]", re.IGNORECASE)
_HEXADECIMAL = re.compile(r"(?:[0-9a-f]{2})+", re.IGNORECASE)
#: a file's first bytes after a program has read them as Latin-1, or as broken UTF-8
_READ_AS_TEXT = re.compile(
    rb"(\xc2\x89|\xef\xbf\xbd)PNG|(\xc2\x93|\xef\xbf\xbd)NUMPY|\xc3\xbf\xc3\x98\xc3\xbf|(\xef\xbf\xbd){3}"
    # the first bytes of a PNG include line ends and an 8-bit byte, so that a conversion of either is visible
    rb"|\x89PNG[\r\n]|\tPNG[\r\n]"
)
_PNM = re.compile(rb"P[1-6Ff]\s+(#[^\n]*\n\s*)*\d+\s+-?\d+\s|P7\n(#|WIDTH)")


def refused_media_type(content_type: str | None) -> UnsupportedImageType | None:
    """Create the error for a media type that is not accepted; None if it is accepted."""
    media_type = (content_type or "").split(";")[0].strip().lower()
    if media_type in _ACCEPTED_TYPES:
        return None
    return UnsupportedImageType(f"{shown_name(media_type)} is not accepted", field="image", expected=ACCEPTED)


def refused_document(data: bytes | memoryview) -> UnsupportedImageType | None:
    """Create the error for a text document or an encoded array that was sent as an image; None for other bytes."""
    text = _as_text(bytes(data[:_HEAD_BYTES])) or ""
    name = next((name for start, name in _DOCUMENTS if start.match(text)), None)
    if name is not None:
        return UnsupportedImageType(f"the file is {name} text", field="image", expected=ACCEPTED)
    encoding = _encoding(text)
    detail = f"the file is {encoding} text: decode it first"
    return UnsupportedImageType(detail, field="image", expected=ACCEPTED) if encoding else None


def refused_content(data: bytes | memoryview) -> UnsupportedImageType | None:
    """Create the error for bytes of a known format that is not accepted; None for other bytes."""
    head = bytes(data[:_HEAD_BYTES])
    if (name := _refused_name(head)) is not None:
        return UnsupportedImageType(f"{name} files are not accepted", field="image", expected=ACCEPTED)
    if _READ_AS_TEXT.match(head):
        detail = "the file was read as text before it was sent, which changes its bytes"
        return UnsupportedImageType(detail, field="image", expected=f"the unchanged bytes of {ACCEPTED}")
    if (form := _text_form(head)) is not None:
        return UnsupportedImageType(f"the file is {form}", field="image", expected=f"the decoded bytes: {ACCEPTED}")
    return None


def is_base64_of(data: bytes | memoryview, byte_count: int) -> bool:
    """Whether the data may be the base64 text, with or without line breaks, of `byte_count` bytes."""
    least = 4 * byte_count // 3
    text = _as_text(bytes(data[:_HEAD_BYTES])) if least <= len(data) <= 1.1 * least + 8 else None
    bare = _WRAPPING.sub("", text or "").rstrip("\"'")
    # the bytes of an array of one colour may be letters too
    return _BASE64.fullmatch(bare) is not None and len(set(bare)) >= _LEAST_BASE64_DIGITS


def _text_form(head: bytes) -> str | None:
    """Name the kind of text that the first bytes of a file are, as the end of "the file is …"; None for other bytes."""
    text = _as_text(head)
    if text is None:
        return None
    if _DATA_URL.match(text.lstrip("\"'")):
        return "a data URL, not the image itself: decode it first"
    if _ADDRESS.match(text.lstrip("\"'")):
        return "an address, not the image itself"
    for encoding, first_bytes in (("base64", _from_base64(text)), ("hexadecimal", _from_hexadecimal(text))):
        found = sniff(first_bytes)
        name = _refused_name(first_bytes) if found is None else found.label
        if name is not None:
            return f"{encoding} text of a {name} file: decode it first"
    return None


def _encoding(text: str) -> str | None:
    """Name the encoding that an array's bytes may have as text; None for words, numbers and single colours."""
    digits = _HEXADECIMAL_MARKS.sub("", text.strip("b\"'"))
    if re.fullmatch("[0-9a-f]+", digits, re.IGNORECASE) and _has_many(digits) and not digits.isdecimal():
        return "hexadecimal"
    bare = "".join(text.strip("b\"'").splitlines())
    is_base64 = _BASE64.fullmatch(bare) and _has_many(bare) and bare.upper() != bare != bare.lower()
    return "base64" if is_base64 else None


def _has_many(digits: str) -> bool:
    return len(digits) >= _LEAST_TEXT_LENGTH and len(set(digits)) >= _LEAST_BASE64_DIGITS


def _as_text(head: bytes) -> str | None:
    """Decode printable ASCII; None for other bytes."""
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if head.startswith(mark)), "ascii")
    text = head.decode(encoding, "replace").lstrip("\ufeff").strip()
    unquoted = unquote_to_bytes(text).decode("ascii", "replace")
    return next((form for form in (unquoted, text) if form.isascii() and "".join(form.split()).isprintable()), None)


def _from_base64(text: str) -> bytes:
    """Decode the first bytes of base64 text, also in the alphabet for URLs (RFC 4648, chapter 5); empty for other text."""
    match = _BASE64.match(_WRAPPING.sub("", text))
    digits = match[0][: SNIFFED_BYTES * 2].rstrip("=").translate({ord("-"): "+", ord("_"): "/"}) if match else ""
    return base64.b64decode(digits[: len(digits) & ~3])


def _from_hexadecimal(text: str) -> bytes:
    match = _HEXADECIMAL.match(_HEXADECIMAL_MARKS.sub("", text.lstrip("b\"'")))
    return bytes.fromhex(match[0][: SNIFFED_BYTES * 2]) if match else b""


def _refused_name(head: bytes) -> str | None:
    if head[4:8] == b"ftyp":
        return _REFUSED_BRANDS.get(head[8:12])
    # "BM" is too likely at the start of raw bytes; a BMP has four reserved zero bytes in addition
    if head.startswith(b"BM") and head[6:10] == bytes(4):
        return "BMP"
    if _PNM.match(head):
        return "PNM"
    return next((name for magic, name in _REFUSED_MAGIC if head.startswith(magic)), None)
