"""Reading of the member `image` of a JSON body: the bytes in base64, or the URL of the image.

{"base64": "iVBORw0KGgo…"}                        the bytes of the file
{"url": "data:image/png;base64,iVBORw0KGgo…"}     the same, as browsers write it (RFC 2397)
{"url": "s3://BUCKET/KEY"}                        an object of the object store
{"url": "https://HOST/PATH"}                      fetched by the API, if the settings allow it
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from api.forms.known_fields import IMAGE
from inference.errors import InvalidRequest, shown, shown_name
from inference.runtime.gevent import yield_to_other_greenlets

#: Correct values of the member, for errors.
EXPECTED_IMAGE = '{"base64": "…"} or {"url": "s3://BUCKET/KEY"}'
_MEMBERS = ("base64", "url")
_EXPECTED_BASE64 = "the standard alphabet (A-Z a-z 0-9 + /), padded with =, without line breaks: base64 -w0 photo.jpg"
_EXPECTED_URL = "s3://BUCKET/KEY, https://HOST/PATH or data:image/png;base64,…"
_EXPECTED_DATA_URL = "data:image/png;base64,…"
_NO_BASE64 = re.compile(r"[^A-Za-z0-9+/=]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_DATA_SCHEME = "data:"
#: Maximum length of the part of a data URL before the comma.
_MAX_DATA_HEAD = 256
_MAX_URL_LENGTH = 4096
#: Characters that are decoded at a time, in a few milliseconds; a multiple of four.
_PIECE_LENGTH = 2**20
_NAMED_SCHEMES = {"s3", "http", "https"}


@dataclass(frozen=True)
class ImageUrl:
    """URL of an image that a request names, as it was sent."""

    url: Any
    #: its place in the request, for errors
    field: str
    #: whether it is a URL of HTTP
    is_fetched: bool = False


@dataclass
class SentImage:
    """Image of a request: bytes, or a URL."""

    content: bytes = b""
    content_type: str | None = None
    url: ImageUrl | None = None


def read_json_image(value: Any) -> SentImage:
    """Read the member `image` of a JSON object. Raises InvalidRequest: `field` of the error is the member that is wrong."""
    if not isinstance(value, dict):
        raise InvalidRequest(
            f"image is no JSON object: {shown(value)}",
            field=IMAGE,
            expected=f"{EXPECTED_IMAGE}; a file as a part of multipart/form-data: curl -F image=@photo.jpg …",
        )
    for name in value:
        if name not in _MEMBERS:
            raise InvalidRequest(
                f"image has no member {shown(name)}", field=f"{IMAGE}.{shown_name(name)}", expected=EXPECTED_IMAGE
            )
    if len(value) != 1:
        found = "both base64 and url" if value else "neither base64 nor url"
        raise InvalidRequest(f"image has {found}", field=IMAGE, expected=EXPECTED_IMAGE)
    ((name, text),) = value.items()
    field = f"{IMAGE}.{name}"
    if not isinstance(text, str):
        raise InvalidRequest(f"{field} is not a text: {shown(text)}", field=field, expected=EXPECTED_IMAGE)
    return SentImage(_decoded(text, field)) if name == "base64" else _read_url(text, field)


def _read_url(text: str, field: str) -> SentImage:
    match = _SCHEME.match(text)
    scheme = match[1].lower() if match else ""
    if scheme == "data":
        return _read_data_url(text, field)
    if scheme not in _NAMED_SCHEMES or len(text) > _MAX_URL_LENGTH:
        raise InvalidRequest(f"{field} is {shown(text)}", field=field, expected=_EXPECTED_URL)
    return SentImage(url=ImageUrl(text, field, is_fetched=scheme != "s3"))


def _read_data_url(text: str, field: str) -> SentImage:
    head, comma, _ = text[: _MAX_DATA_HEAD + 1].partition(",")
    media_type, *parameters = head[len(_DATA_SCHEME) :].split(";")
    if not comma or not parameters or parameters[-1].strip().lower() != "base64":
        raise InvalidRequest(f"{field} is a data URL without base64: {shown(text)}", field=field, expected=_EXPECTED_DATA_URL)
    return SentImage(_decoded(text[len(head) + 1 :], field), media_type.strip().lower() or None)


def _decoded(text: str, field: str) -> bytes:
    """Decode base64 (RFC 4648, section 4), strictly. Raises InvalidRequest."""
    if not text:
        raise InvalidRequest(f"{field} is empty", field=field, expected=_EXPECTED_BASE64)
    try:
        if len(text) <= _PIECE_LENGTH:
            return binascii.a2b_base64(text, strict_mode=True)
        return b"".join(_decoded_pieces(text))
    except ValueError as error:
        raise _not_base64(text, field) from error


def _decoded_pieces(text: str) -> Iterator[bytes]:
    """Decode a long text in pieces, between which other greenlets may run. Raises ValueError."""
    if text.find("=", 0, -2) >= 0:
        raise ValueError("padding is at the end alone")
    for start in range(0, len(text), _PIECE_LENGTH):
        yield binascii.a2b_base64(text[start : start + _PIECE_LENGTH], strict_mode=True)
        yield_to_other_greenlets()


def _not_base64(text: str, field: str) -> InvalidRequest:
    if text[: len(_DATA_SCHEME)].lower() == _DATA_SCHEME:
        return InvalidRequest(f"{field} is a data URL", field=field, expected='{"url": "data:…"}, or the part after its comma')
    wrong = _NO_BASE64.search(text)
    if wrong is not None:
        detail = f"{field} is not base64: character {wrong.start() + 1} is {shown(wrong[0])}"
    else:
        detail = f"{field} is not base64: its {len(text)} characters are not groups of four, padded with = at the end alone"
    return InvalidRequest(detail, field=field, expected=_EXPECTED_BASE64)
