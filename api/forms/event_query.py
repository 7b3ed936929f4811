"""Query and headers of a request for events, or for a batch as JSON Lines."""

from __future__ import annotations

from flask import request

from api.forms.query import check_query
from api.forms.task_query import read_filter, read_flag
from inference.task_store import TaskFilter

_JSON = "application/json"
_JSON_LINES = ("application/jsonl", "application/x-ndjson")


def read_with_vectors() -> bool:
    """Read whether results are to have their vectors. Raises InvalidRequest."""
    check_query({"prediction"})
    return read_flag(request.args, "prediction")


def read_event_filter() -> TaskFilter:
    """Read the filter of a list. Raises InvalidRequest."""
    check_query(("status", "model", "request_id", "owner"))
    return read_filter(request.args)


def is_last_event(event_id: str) -> bool:
    """Whether the client says that it has had this event."""
    return request.headers.get("Last-Event-ID") == event_id


def wants_json_lines() -> bool:
    """Whether the client prefers JSON Lines to a JSON document."""
    return request.accept_mimetypes.best_match((_JSON, *_JSON_LINES)) in _JSON_LINES
