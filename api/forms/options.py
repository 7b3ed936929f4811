"""Options of a predict request: what each may be. Members of `metadata`, form fields and query parameters are read alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from api.forms.known_fields import OPTION_NAMES
from inference.array_metadata import parse_dtype, parse_shape
from inference.broker import HIGHEST_PRIORITY, USUAL_PRIORITY
from inference.errors import InvalidMetadata, InvalidRequest, shown
from inference.ids import read_request_id

Options = Mapping[str, Any]

#: A longer text is no number of ours, and Python refuses to read integers of thousands of digits.
_MAX_NUMBER_LENGTH = 100
#: Characters of a text, names of a list.
_MAX_SINKS_LENGTH = 1000


def options_among(members: Options) -> dict[str, Any]:
    return {name: members[name] for name in OPTION_NAMES if name in members}


def merge_options(metadata: Options, fields: Options) -> dict[str, Any]:
    """The metadata with the options that are fields of their own.

    A field `request_id` takes precedence, as a gateway may add it to what a client sends; the answer says which was taken.

    Raises:
        InvalidMetadata: two places give different values of another option, or a value of one that is in both is wrong.
    """
    own = options_among(fields)
    merged = {**metadata, **own}
    for name in own.keys() & metadata.keys():
        inside, outside = (_READERS[name](options[name]) for options in (metadata, own))
        if not _is_given(outside):
            merged[name] = metadata[name]
        elif _is_given(inside) and inside != outside and name != "request_id":
            raise InvalidMetadata(
                f"{name} is {shown(metadata[name])} in metadata and {shown(own[name])} as a field of its own",
                field=f"metadata.{name}",
                expected="one of the two",
            )
    return merged


def is_same(name: str, one: Any, other: Any) -> bool:
    """Whether two values that a field has in two places mean the same. Raises InvalidRequest: a value is wrong."""
    read: Callable[[Any], Any] = _READERS.get(name, _text_of)
    return bool(read(one) == read(other))


def _text_of(value: Any) -> str:
    """As it would be written in a query; booleans also as Python writes them."""
    text = str(value)
    return text.lower() if text in ("True", "False") else text


def _is_given(value: Any) -> bool:
    return value is not None and value != ""


def read_model(value: Any) -> str | None:
    """None where the served model is meant. Raises InvalidMetadata."""
    if value is not None and not isinstance(value, str):
        raise InvalidMetadata(f"model is not a text: {shown(value)}", field="metadata.model", expected="a text")
    return value or None


def read_deadline_s(value: Any) -> float | None:
    """Seconds; None where the service's default is meant. Raises InvalidMetadata."""
    if value is None:
        return None
    seconds = number_in(value)
    if not 0 < seconds < math.inf:
        raise InvalidMetadata(
            f"deadline_s is not a number of seconds: {shown(value)}", field="metadata.deadline_s", expected="a number over 0"
        )
    return seconds


def number_in(value: Any) -> float:
    """A number, or the text of one in ASCII; not a number for anything else."""
    is_number = type(value) in (int, float) or (isinstance(value, str) and value.isascii() and "_" not in value)
    try:
        return float(value) if is_number else math.nan
    except (ValueError, OverflowError):
        return math.nan


def read_mode(value: Any) -> str | None:
    """None where it is not given. Raises InvalidRequest."""
    if value is None:
        return None
    if value not in ("sync", "async"):
        raise InvalidRequest(f"there is no mode {shown(value)}", field="mode", expected="sync or async")
    return str(value)


def read_priority(value: Any) -> int | None:
    """None where it is not given, as an empty text. Raises InvalidMetadata."""
    if value is None or value == "":
        return None
    priority = -1
    if type(value) is int:
        priority = value
    elif isinstance(value, str) and len(value) <= _MAX_NUMBER_LENGTH and value.isascii() and value.strip().isdigit():
        priority = int(value)
    if not USUAL_PRIORITY <= priority <= HIGHEST_PRIORITY:
        raise InvalidMetadata(
            f"priority is {shown(value)}",
            field="metadata.priority",
            expected=f"a whole number from {USUAL_PRIORITY} (usual) to {HIGHEST_PRIORITY} (goes first)",
        )
    return priority


def read_sinks(value: Any) -> tuple[str, ...] | None:
    """None where the configured ones are meant; a text has commas between, and an empty one is none. Raises InvalidMetadata."""
    if value is None:
        return None
    is_short = isinstance(value, str | list) and len(value) <= _MAX_SINKS_LENGTH
    names = [name for name in value.split(",") if name.strip()] if isinstance(value, str) and is_short else value
    if not is_short or not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidMetadata(
            f"sinks is not a list of names: {shown(value)}",
            field="metadata.sinks",
            expected='a list such as ["kafka"], or [] for none',
        )
    return tuple(dict.fromkeys(name.strip() for name in names))


#: For each option, a function that makes values of the same meaning equal.
_READERS: Mapping[str, Callable[[Any], Any]] = {
    "request_id": read_request_id,
    "model": read_model,
    "deadline_s": read_deadline_s,
    "mode": read_mode,
    "priority": read_priority,
    "sinks": read_sinks,
    "shape": lambda value: None if value is None else parse_shape(value),
    "dtype": lambda value: None if value is None else parse_dtype(value),
}
