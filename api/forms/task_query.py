"""Query parameters of `GET /tasks`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from flask import request

from api.forms.query import check_query
from inference.errors import InvalidRequest, shown

_NAMES = ("request_id", "limit", "cursor", "vectors")
_LIMIT_DEFAULT, _LIMIT_MAX = 100, 1000
_NUMBER = re.compile(r"[0-9]{1,9}")
#: An acceptance number. It has a fixed length, so that the number of a page is not mistaken for a cursor.
_CURSOR = re.compile(r"[0-9a-f]{16}")
#: Read in upper or lower case: HTTP clients write booleans as their language does.
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class TaskQuery:
    """A page of the tasks with one request id."""

    request_id: str
    limit: int
    #: acceptance number after which the page begins
    after: int
    #: whether prediction vectors are wanted
    vectors: bool

    def next_url(self, cursor: str) -> str:
        """The URL of the next page, relative to this one: it is right behind a proxy with any path."""
        vectors = {"vectors": "true"} if self.vectors else {}
        return "?" + urlencode({"request_id": self.request_id, "limit": self.limit, **vectors, "cursor": cursor})


def read_task_query() -> TaskQuery:
    """Read the query of the current request. Raises InvalidRequest."""
    check_query(_NAMES)
    options = request.args.to_dict()
    if not options.get("request_id"):
        raise InvalidRequest("GET /tasks needs request_id", field="request_id", expected="GET /tasks?request_id=ID")
    return TaskQuery(options["request_id"], _limit(options), _after(options), _vectors(options))


def cursor_after(number: int) -> str:
    """The cursor of a page that begins after this acceptance number."""
    return f"{number:016x}"


def _limit(options: Mapping[str, str]) -> int:
    text = options.get("limit", str(_LIMIT_DEFAULT))
    limit = int(text) if _NUMBER.fullmatch(text) else 0
    if not 1 <= limit <= _LIMIT_MAX:
        raise InvalidRequest(f"limit is {shown(text)}", field="limit", expected=f"a whole number from 1 to {_LIMIT_MAX}")
    return limit


def _after(options: Mapping[str, str]) -> int:
    text = options.get("cursor")
    if text is None:
        return 0
    if not _CURSOR.fullmatch(text):
        expected = "next_cursor of the previous page, unchanged; no cursor for the first page"
        raise InvalidRequest(f"cursor is {shown(text)}", field="cursor", expected=expected)
    return int(text, 16)


def _vectors(options: Mapping[str, str]) -> bool:
    text = options.get("vectors", "false")
    vectors = _BOOLEANS.get(text.lower())
    if vectors is None:
        raise InvalidRequest(f"vectors is {shown(text)}", field="vectors", expected="true or false")
    return vectors
