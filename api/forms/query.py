"""Reading of query parameters: the route must know each of them, and each may occur once."""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import parse_qsl

from flask import request

from api.forms.known_fields import nearest
from inference.errors import InvalidRequest, shown, shown_name

#: jQuery and other libraries add it to bypass caches.
_CACHE_BUSTER = "_"
#: Bytes that are not UTF-8, as Python represents them in a str.
_NOT_DECODED = re.compile("[\udc80-\udcff]")


def read_query() -> dict[str, str]:
    """Read the query parameters of the current request.

    Raises:
        InvalidRequest: a parameter occurs twice, or is not text in UTF-8; `field` of the error is the parameter.
    """
    if not request.query_string:
        return {}
    text = request.query_string.decode("utf-8", "surrogateescape")
    pairs = parse_qsl(text, keep_blank_values=True, errors="surrogateescape")
    query: dict[str, str] = {}
    for name, value in pairs:
        if name == _CACHE_BUSTER:
            continue
        field = shown_name(name)
        if _NOT_DECODED.search(name + value):
            raise InvalidRequest(f"the query parameter {field} is not text in UTF-8", field=field, expected="text in UTF-8")
        if name in query:
            times = sum(1 for other, _ in pairs if other == name)
            raise InvalidRequest(f"the query parameter {field} was sent {times} times", field=field, expected="once")
        query[name] = value
    return query


def check_query(known: Collection[str] = ()) -> None:
    """Refuse a query parameter that the route does not know, or that occurs twice.

    Args:
        known: the parameters of the route.

    Raises:
        InvalidRequest: `field` of the error is the parameter.
    """
    for name in read_query():
        if name not in known:
            raise _unknown(name, known)


def _unknown(name: str, known: Collection[str]) -> InvalidRequest:
    near = nearest(name, known)
    hint = f": did you mean {near}?" if near else ""
    expected = f"one of {', '.join(sorted(known))}" if known else "no query parameter here"
    return InvalidRequest(f"there is no query parameter {shown(name)}{hint}", field=shown_name(name), expected=expected)
