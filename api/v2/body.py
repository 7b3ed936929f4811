"""Body of a request: a JSON object, and after it the binary data of tensors."""

from __future__ import annotations

import re
from typing import Any

from flask import Request, current_app

from api.forms.json_body import read_json
from api.forms.spool import read_spooled
from api.server.http_messages import holder_of
from api.v2.compression import check_encoding, inflate
from inference.errors import InvalidRequest, PayloadTooLarge, shown

#: Length of the JSON object in a body that has binary data too.
HEADER_LENGTH = "Inference-Header-Content-Length"
#: Maximum bytes of a JSON object: to parse more takes too long, during which all other requests wait.
_MAX_JSON_BYTES = 4 * 2**20
_LENGTH = re.compile("[0-9]{1,12}")
_EXAMPLE = '{"inputs": [{"name": "image", "datatype": …, "shape": …, "data": …}]}'


def read_body(request: Request) -> tuple[Any, memoryview]:
    """Read the JSON value of a body, {} for none, and the binary data after it.

    Raises:
        InvalidRequest: the JSON or a length is wrong, or the body is not compressed as it says.
        PayloadTooLarge: the body, as sent or inflated, exceeds a limit.
        ServiceUnavailable: the service holds too many bodies already.
        UnsupportedContentEncoding: the body has another encoding than gzip or deflate.
    """
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    check_encoding(encoding)
    length = _json_length(request)
    is_plain = encoding in {"", "identity"}
    if is_plain and length is None:
        _check_json_size(request.content_length or 0)
    body = read_spooled(request.stream)
    if not is_plain and body:
        max_bytes = current_app.config["MAX_CONTENT_LENGTH"]
        body = inflate(body, encoding, max_bytes=max_bytes, hold=holder_of(request.environ))
    if length is None:
        length = len(body)
    if length > len(body):
        detail = f"{HEADER_LENGTH} is {length}, and the body has {len(body)} bytes"
        raise InvalidRequest(detail, field=HEADER_LENGTH, expected="the bytes of the JSON object")
    _check_json_size(length)
    view = memoryview(body)
    if not body:
        return {}, view
    return read_json(bytes(view[:length]), "the body", _EXAMPLE, error=InvalidRequest), view[length:]


def _json_length(request: Request) -> int | None:
    text = request.headers.get(HEADER_LENGTH)
    if text is None:
        return None
    if not _LENGTH.fullmatch(text):
        raise InvalidRequest(f"{HEADER_LENGTH} is {shown(text)}", field=HEADER_LENGTH, expected="a number of bytes")
    return int(text)


def _check_json_size(size: int) -> None:
    if size > _MAX_JSON_BYTES:
        raise PayloadTooLarge(
            f"a request in JSON has at most {_MAX_JSON_BYTES} bytes", expected="tensors as binary data (binary_data_size)"
        )
