"""Query parameters of `GET /tasks`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from urllib.parse import urlencode

from flask import request

from api.forms.query import check_query
from inference.access import OWNER_PATTERN
from inference.domain import TaskStatus
from inference.errors import InvalidRequest, shown
from inference.task_store import TaskFilter

_NAMES = ("status", "model", "request_id", "owner", "since", "limit", "cursor", "prediction")
_LIMIT_DEFAULT, _LIMIT_MAX = 50, 500
_NUMBER = re.compile(r"[0-9]{1,9}")
#: An acceptance number. It has a fixed length, so that the number of a page is not mistaken for a cursor.
_CURSOR = re.compile(r"[0-9a-f]{16}")
_OWNER = re.compile(OWNER_PATTERN)
#: Read in upper or lower case: HTTP clients write booleans as their language does.
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_SECONDS = re.compile(r"[0-9]{1,11}(\.[0-9]{1,9})?")
#: RFC 3339, section 5.6. A space before the offset is a "+" that the client did not encode.
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d(?:\.\d{1,6})?\d*)(?:([Zz])|([-+ ])(\d\d:\d\d))", re.ASCII)


@dataclass(frozen=True)
class TaskQuery:
    """A page of a list of tasks."""

    wanted: TaskFilter
    limit: int
    #: acceptance number before which the page begins; None: the first page
    before: int | None
    #: whether results have their `prediction`
    prediction: bool
    #: the parameters as they were sent, without the cursor
    options: Mapping[str, str]

    def next_query(self, cursor: str) -> str:
        """The query of the next page, with its question mark; a reference relative to this page, right behind any proxy."""
        return "?" + urlencode({**self.options, "cursor": cursor})


def read_task_query() -> TaskQuery:
    """Read the query of the current request. Raises InvalidRequest."""
    check_query(_NAMES)
    options = {name: request.args[name] for name in _NAMES if name in request.args}
    wanted = replace(read_filter(options), since_ms=_since_ms(options))
    without_cursor = {name: value for name, value in options.items() if name != "cursor"}
    return TaskQuery(wanted, read_limit(options), _before(options), read_flag(options, "prediction"), without_cursor)


def read_filter(options: Mapping[str, str]) -> TaskFilter:
    """Read the parameters `request_id`, `status`, `model` and `owner`. Raises InvalidRequest."""
    request_id, model = _text(options, "request_id"), _text(options, "model")
    return TaskFilter(request_id, _statuses(options), model, owner=_owner(options))


def read_flag(options: Mapping[str, str], name: str) -> bool:
    """Read a parameter that is `true` or `false`; false without it. Raises InvalidRequest."""
    text = options.get(name, "false")
    flag = _BOOLEANS.get(text.lower())
    if flag is None:
        raise InvalidRequest(f"{name} is {shown(text)}", field=name, expected="true or false")
    return flag


def cursor_before(number: int) -> str:
    """The cursor of a page that begins before this acceptance number."""
    return f"{number:016x}"


def _text(options: Mapping[str, str], name: str) -> str:
    text = options.get(name)
    if text == "":
        raise InvalidRequest(f"{name} is empty", field=name, expected=f"{name}=VALUE, or no {name} for tasks with any")
    return text or ""


def _owner(options: Mapping[str, str]) -> str:
    owner = _text(options, "owner")
    if owner and not _OWNER.fullmatch(owner):  # it becomes a part of Redis keys
        expected = "the owner of a key: 1 to 64 letters, digits and . _ @ -, first a letter or digit"
        raise InvalidRequest(f"owner is {shown(owner)}", field="owner", expected=expected)
    return owner


def _statuses(options: Mapping[str, str]) -> tuple[TaskStatus, ...]:
    if "status" not in options:
        return ()
    words = options["status"].split(",")
    known = [status.value for status in TaskStatus]
    for word in words:
        if word not in known:
            raise InvalidRequest(
                f"there is no status {shown(word)}", field="status", expected=f"{', '.join(known)}; or some, separated by commas"
            )
    return tuple(TaskStatus(word) for word in words)


def _since_ms(options: Mapping[str, str]) -> int:
    text = options.get("since")
    if text is None:
        return 0
    if _SECONDS.fullmatch(text):
        return math.ceil(float(text) * 1000)
    found = _TIME.fullmatch(text)
    if found is not None:
        day, time, _, sign, offset = found.groups()
        zone = f"{sign.replace(' ', '+')}{offset}" if offset else "+00:00"
        try:
            return max(0, math.ceil(datetime.fromisoformat(f"{day}T{time}{zone}").timestamp() * 1000))
        except ValueError:
            pass  # no day or no time of the calendar
    expected = "a time as in RFC 3339, 2026-01-31T12:00:00Z, or seconds since the epoch"
    raise InvalidRequest(f"since is {shown(text)}", field="since", expected=expected)


def read_limit(options: Mapping[str, str]) -> int:
    """Read the parameter `limit`. Raises InvalidRequest."""
    text = options.get("limit", str(_LIMIT_DEFAULT))
    limit = int(text) if _NUMBER.fullmatch(text) else 0
    if not 1 <= limit <= _LIMIT_MAX:
        raise InvalidRequest(f"limit is {shown(text)}", field="limit", expected=f"a whole number from 1 to {_LIMIT_MAX}")
    return limit


def _before(options: Mapping[str, str]) -> int | None:
    text = options.get("cursor")
    if text is None:
        return None
    if not _CURSOR.fullmatch(text):
        expected = "next_cursor of the previous page, unchanged; no cursor for the first page"
        raise InvalidRequest(f"cursor is {shown(text)}", field="cursor", expected=expected)
    return int(text, 16)
