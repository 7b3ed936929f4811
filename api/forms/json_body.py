"""Reading of JSON that clients send."""

from __future__ import annotations

import contextlib
import json
import re
from functools import partial
from typing import Any

import orjson
from flask import current_app, has_app_context

from inference.errors import InvalidMetadata, InvalidRequest, shown, shown_name
from inference.runtime.heap import no_collections

#: The second reading of a longer text with more values would take seconds; metadata has at most half of this length.
_MAX_CHECKED_LENGTH, _MAX_CHECKED_VALUES = 2**20, 2**17
#: Occurrences of a character that are found one by one before the rest is counted.
_MAX_FINDS = 2**8
#: Levels of nesting outside of an application; see `limits.max_json_depth`.
_MAX_DEPTH = 64
#: The beginning of a request in JSON: a command, an image, or a batch.
_REQUEST = re.compile(rb'(?:\xef\xbb\xbf)?\s*\{[^{}\[]*"(?:command"\s*:|items"\s*:|image"\s*:\s*\{)')
#: The many objects of a longer text would start the garbage collector repeatedly, each time over all of them.
_LONG_TEXT = 2**16
_CONTAINERS = {dict, list}
_NON_FINITE = ("NaN", "Infinity")


def read_json(text: str | bytes, field: str, expected: str, *, error: type[InvalidRequest] = InvalidMetadata) -> Any:
    """Read a JSON document.

    Args:
        field: the field that contains it, for the error.
        expected: an example of a correct document, for the error.

    Raises:
        InvalidRequest: of the class `error`: the text is not JSON, is nested too deeply, or has a member twice in one object.
    """
    if isinstance(text, bytes):
        text = text.removeprefix(b"\xef\xbb\xbf")
    try:
        document = _parsed(text)
    except orjson.JSONDecodeError as problem:
        raise error(f"{field} is not JSON: {problem}", field=field, expected=expected) from problem
    max_depth = current_app.config["MAX_JSON_DEPTH"] if has_app_context() else _MAX_DEPTH
    if _count(text, "[", max_depth + 1) + _count(text, "{", max_depth + 1) > max_depth and _is_deeper(document, max_depth):
        detail = f"{field} is nested too deeply: it has more than {max_depth} levels (limits.max_json_depth)"
        raise error(detail, field=field, expected=expected)
    if len(text) <= _MAX_CHECKED_LENGTH or count_values(text, _MAX_CHECKED_VALUES + 1) <= _MAX_CHECKED_VALUES:
        _check_members_differ(text, document, field, error)
    return document


def _is_deeper(document: Any, max_depth: int) -> bool:
    """Return whether lists and objects are nested in more than `max_depth` levels."""
    level = [document] if type(document) in _CONTAINERS else []
    for _ in range(max_depth):
        members = (found.values() if isinstance(found, dict) else found for found in level)
        level = [inner for values in members for inner in values if type(inner) in _CONTAINERS]
    return bool(level)


def count_values(text: str | bytes, most: int) -> int:
    """Count the values in a JSON document, at most `most` of them; strings may add to it, but base64 does not."""
    count = 1
    for sign in (",", "[", "{"):
        count += _count(text, sign, most - count)
    return count


def _count(text: str | bytes, sign: str, most: int) -> int:
    """Count a character, up to `most` times.

    `find` passes over base64 several times as fast as `count`, but stops at each occurrence: it looks for the first ones only.
    """
    wanted: Any = sign if isinstance(text, str) else sign.encode()
    count, at = 0, text.find(wanted)
    while at >= 0 and count < min(most, _MAX_FINDS):
        count, at = count + 1, text.find(wanted, at + 1)
    return count if at < 0 or count >= most else min(most, count + text.count(wanted, at))


def _parsed(text: str | bytes) -> Any:
    """Parse a text. Raises JSONDecodeError."""
    with no_collections() if len(text) > _LONG_TEXT else contextlib.nullcontext():
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            document = _with_non_finite(text)
            if document is None:
                raise
            return document


def check_no_json(start: bytes, media_type: str) -> None:
    """Refuse a JSON request that has another Content-Type. Raises InvalidRequest.

    Args:
        start: the body, or its first bytes.
    """
    if _REQUEST.match(start):
        sent_as = f"is {media_type}" if media_type else "is missing"
        detail = f"the body is JSON, and its Content-Type {sent_as}"
        raise InvalidRequest(detail, field="Content-Type", expected="Content-Type: application/json")


def _with_non_finite(text: str | bytes) -> Any:
    """Parse a document with NaN, Infinity or -Infinity, as Python's json writes them; None if the text is not such a document.

    A client's own members may contain them: no member that this service reads accepts them.
    """
    try:
        text = text.decode() if isinstance(text, bytes) else text
        document = json.loads(text, parse_int=_integer) if any(word in text for word in _NON_FINITE) else None
        orjson.dumps(document)
    except (ValueError, RecursionError, orjson.JSONEncodeError):
        return None
    return document


def _integer(text: str) -> float:
    """Read an integer as orjson does: as a float if it has more than 64 bits."""
    number = int(text)
    return number if -(2**63) <= number < 2**64 else float(number)


def _check_members_differ(text: str | bytes, document: Any, field: str, error: type[InvalidRequest]) -> None:
    """Refuse an object with a member twice. Raises InvalidRequest.

    The text is parsed again only if it has more colons than members: strings may contain colons too.
    """
    members = _count_members(document)
    if _count(text, ":", members + 1) != members:
        json.loads(text, object_pairs_hook=partial(_check_pairs, field=field, error=error), parse_int=str, parse_float=str)


def _count_members(document: Any) -> int:
    count, unseen = 0, [document]
    while unseen:
        value = unseen.pop()
        if isinstance(value, dict):
            count += len(value)
            value = value.values()
        elif not isinstance(value, list):
            continue
        unseen.extend([inner for inner in value if inner and type(inner) in _CONTAINERS])
    return count


def _check_pairs(pairs: list[tuple[str, Any]], *, field: str, error: type[InvalidRequest]) -> None:
    names = set()
    for name, _ in pairs:
        if name in names:
            detail = f"{field} has the member {shown(name)} twice"
            raise error(detail, field=f"{field}.{shown_name(name)}", expected="each member once")
        names.add(name)
