"""JSON responses, in which orjson writes float32 vectors without conversion, and streamed ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from flask import Response, request

from api.events.streams import EventStream
from api.security.caller import key_check

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE


def json_response(
    document: Any, status: int = 200, *, headers: Mapping[str, str] | None = None, mimetype: str = "application/json"
) -> Response:
    """Respond with `document` as JSON."""
    return Response(orjson.dumps(document, option=_OPTIONS), status, headers, mimetype=mimetype)


def streamed_response(stream: EventStream, parts: Iterator[bytes], media_type: str, status: int = 200) -> Response:
    """Respond with the parts as they come; `stream` is closed at the end, when the client disconnects or its key is revoked."""
    response = Response(parts, status, {"X-Accel-Buffering": "no"}, mimetype=media_type)
    response.call_on_close(stream.close)
    stream.is_still_allowed = key_check()
    stream.watch(request.environ.get("gunicorn.socket"))
    return response
