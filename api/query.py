"""Query parameters: each one is known to its route, and given once."""

from __future__ import annotations

from collections.abc import Collection

from flask import request

from api.known_fields import nearest
from inference.errors import InvalidRequest, shown, shown_name

#: jQuery and other libraries add it against caches.
_CACHE_BUSTER = "_"


def check_query(known: Collection[str] = ()) -> None:
    """Refuse a query parameter that the route does not know, and one that is given twice.

    Args:
        known: the parameters of the route.

    Raises:
        InvalidRequest: its `field` is the parameter.
    """
    if not request.query_string:
        return
    for name, values in request.args.lists():
        if name == _CACHE_BUSTER:
            continue
        if name not in known:
            raise _unknown(name, known)
        if len(values) > 1:
            raise InvalidRequest(f"the query parameter {name} is given {len(values)} times", field=name, expected="once")


def _unknown(name: str, known: Collection[str]) -> InvalidRequest:
    near = nearest(name, known)
    hint = f": did you mean {near}?" if near else ""
    expected = f"one of {', '.join(sorted(known))}" if known else "no query parameter here"
    return InvalidRequest(f"there is no query parameter {shown(name)}{hint}", field=shown_name(name), expected=expected)
