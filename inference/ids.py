"""Ids of tasks and batches, which become parts of Redis keys and URLs, and request ids, which may be any text."""

from __future__ import annotations

import re
from typing import Any

from inference.errors import InvalidMetadata

#: The API creates ids of 32 hexadecimal digits; plain Celery clients send their own ids.
TASK_ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"
_TASK_ID = re.compile(TASK_ID_PATTERN)

#: Half of a surrogate pair, which JSON can contain ("\\ud800") and no store can keep.
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

#: In characters.
MAX_REQUEST_ID_LENGTH = 256


def is_task_id(text: str) -> bool:
    """Whether a task or a batch can have this id."""
    return _TASK_ID.fullmatch(text) is not None


def read_request_id(value: Any, *, field: str = "metadata.request_id") -> str:
    """Return the request id that a client sent: a text, or a whole number as text; empty if absent. Raises InvalidMetadata."""
    if value is None:
        return ""
    if type(value) is int and abs(value) < 10**MAX_REQUEST_ID_LENGTH:
        value = str(value)
    if not isinstance(value, str) or len(value) > MAX_REQUEST_ID_LENGTH or _LONE_SURROGATE.search(value):
        raise InvalidMetadata(
            "request_id is not a short text", field=field, expected=f"at most {MAX_REQUEST_ID_LENGTH} characters"
        )
    return value
