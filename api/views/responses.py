"""JSON responses; orjson writes float32 vectors without conversion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from flask import Response

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE


def json_response(
    document: Any, status: int = 200, *, headers: Mapping[str, str] | None = None, mimetype: str = "application/json"
) -> Response:
    """Respond with `document` as JSON."""
    return Response(orjson.dumps(document, option=_OPTIONS), status, headers, mimetype=mimetype)
