"""Values of a predict request's options, read alike from members of `metadata`, form fields and query parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from api.forms.known_fields import OPTION_NAMES
from api.forms.webhook import read_webhook
from inference.array_metadata import parse_dtype, parse_shape
from inference.broker import HIGHEST_PRIORITY, USUAL_PRIORITY
from inference.domain import MAX_TOP_K, AnswerOptions
from inference.errors import InvalidMetadata, InvalidRequest, shown
from inference.ids import read_request_id

Options = Mapping[str, Any]

#: A longer text is not a valid number here, and Python refuses to read integers of thousands of digits.
_MAX_NUMBER_LENGTH = 100
#: Maximum characters of a text, and maximum names of a list.
_MAX_SINKS_LENGTH = 1000
_BOOLEAN = TypeAdapter(bool)


def options_among(members: Options) -> dict[str, Any]:
    """Select the members that are options."""
    return {name: members[name] for name in OPTION_NAMES if name in members}


def merge_options(metadata: Options, fields: Options) -> dict[str, Any]:
    """Merge the metadata with the options that are separate fields.

    A field `request_id` takes precedence, because a gateway may add it to a client's request; the answer has the id in use.

    Raises:
        InvalidMetadata: an option other than `request_id` has different values in the two places, or a value of an option that
            is in both places is not valid.
    """
    own = options_among(fields)
    merged = {**metadata, **own}
    for name in own.keys() & metadata.keys():
        inside, outside = (_READERS[name](options[name]) for options in (metadata, own))
        if not _is_given(outside):
            merged[name] = metadata[name]
        elif _is_given(inside) and inside != outside and name != "request_id":
            raise InvalidMetadata(
                f"{name} is {shown(metadata[name])} in metadata and {shown(own[name])} as a separate field",
                field=f"metadata.{name}",
                expected="one of the two",
            )
    return merged


def is_same(name: str, one: Any, other: Any) -> bool:
    """Whether the values of a field in two places mean the same. Raises InvalidRequest: a value is not valid."""
    read: Callable[[Any], Any] = _READERS.get(name, _text_of)
    return bool(read(one) == read(other))


def _text_of(value: Any) -> str:
    """The value as a query contains it; booleans may also be written as in Python."""
    text = str(value)
    return text.lower() if text in ("True", "False") else text


def _is_given(value: Any) -> bool:
    return value is not None and value != ""


def read_model(value: Any) -> str | None:
    """Read the name of a model; None means the served model. Raises InvalidMetadata."""
    if value is not None and not isinstance(value, str):
        raise InvalidMetadata(f"model is not a text: {shown(value)}", field="metadata.model", expected="a text")
    return value or None


def read_deadline_s(value: Any) -> float | None:
    """Read a deadline in seconds; None means the service's default. Raises InvalidMetadata."""
    if value is None:
        return None
    seconds = number_in(value)
    if not 0 < seconds < math.inf:
        raise InvalidMetadata(
            f"deadline_s is not a number of seconds: {shown(value)}", field="metadata.deadline_s", expected="a number over 0"
        )
    return seconds


def number_in(value: Any) -> float:
    """Read a number, or a number as ASCII text; NaN for any other value."""
    is_number = type(value) in (int, float) or (isinstance(value, str) and value.isascii() and "_" not in value)
    try:
        return float(value) if is_number else math.nan
    except (ValueError, OverflowError):
        return math.nan


def read_mode(value: Any) -> str | None:
    """Read the mode; None if it is not given. Raises InvalidRequest."""
    if value is None:
        return None
    if value not in ("sync", "async"):
        raise InvalidRequest(f"there is no mode {shown(value)}", field="mode", expected="sync or async")
    return str(value)


def read_priority(value: Any) -> int | None:
    """Read the priority; None if it is not given or empty. Raises InvalidMetadata."""
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
    """Read the names of sinks: a list, or text with commas; None means the configured sinks, empty means no sink.

    Raises:
        InvalidMetadata: the value is neither of these.
    """
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


def read_top_k(value: Any) -> int | None:
    """Read the number of classes in `top`; None if it is not given or empty. Raises InvalidMetadata."""
    if value is None or value == "":
        return None
    number = number_in(value) if not isinstance(value, str) or len(value) <= _MAX_NUMBER_LENGTH else math.nan
    if not (number >= 1 and number.is_integer()):
        raise InvalidMetadata(
            f"top_k is {shown(value)}",
            field="metadata.top_k",
            expected="a whole number from 1; more than the model has classes means all of them",
        )
    return int(min(number, MAX_TOP_K))


def read_prediction(value: Any) -> bool:
    """Read whether the answer has the vector `prediction`; by default it has. Raises InvalidMetadata."""
    if value is None or value == "":
        return True
    try:
        return _BOOLEAN.validate_python(value)
    except ValidationError as error:
        raise InvalidMetadata(
            f"prediction is neither true nor false: {shown(value)}", field="metadata.prediction", expected="true or false"
        ) from error


def read_answer_options(options: Options) -> AnswerOptions | None:
    """Read the options of the answer; None if all have their defaults. Raises InvalidMetadata."""
    if "top_k" not in options and "prediction" not in options:
        return None
    answer = AnswerOptions(read_top_k(options.get("top_k")), read_prediction(options.get("prediction")))
    return None if answer == AnswerOptions() else answer


#: For each option, the function that reads it: values with the same meaning become equal.
_READERS: Mapping[str, Callable[[Any], Any]] = {
    "request_id": read_request_id,
    "model": read_model,
    "deadline_s": read_deadline_s,
    "mode": read_mode,
    "priority": read_priority,
    "sinks": read_sinks,
    "shape": lambda value: None if value is None else parse_shape(value),
    "dtype": lambda value: None if value is None else parse_dtype(value),
    "top_k": read_top_k,
    "prediction": read_prediction,
    "webhook": read_webhook,
}
