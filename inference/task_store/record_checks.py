"""Types of the values in a record, which answers and documents are made of: Redis may hold anything.

A record with a wrong value is as one that cannot be read: `records.readable` leaves it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inference.domain import ModelRef, Outcome, PredictionResult
from inference.errors import InferenceError

#: Largest number of a record: the last millisecond of the year 9999, the last time that can be shown.
_MAX_NUMBER = 253_402_300_799_999
#: Statuses of `TaskRecord.deliveries`.
_DELIVERY_STATUSES = {"pending", "delivered", "refused", "discarded"}


def number(field: bytes) -> int:
    """Read a whole number of a record: a count, or a time in ms. Raises ValueError."""
    value = int(field)
    if not 0 <= value <= _MAX_NUMBER:
        raise ValueError(f"{value} is not a number of a record")
    return value


def check_outcome(outcome: Outcome) -> None:
    """Raise an exception of any class if a value of the outcome has the wrong type."""
    if outcome.model is not None:
        check_model(outcome.model)
    if outcome.result is not None:
        _check_result(outcome.result)
    if outcome.error is not None:
        InferenceError.from_dict(outcome.error).to_problem()
    check_numbers(outcome.batch_size, outcome.predicted_at_ms, *outcome.timings.values())
    _check(isinstance(outcome.worker, str), "worker")


def check_model(model: ModelRef) -> None:
    """Raise ValueError if a part of the reference is no text."""
    _check(all(isinstance(part, str) for part in (model.name, model.version, model.digest)), "model")


def check_numbers(*values: Any) -> None:
    """Raise ValueError if a value is not a number within the limits of a record."""
    _check(all(type(value) in (int, float) and abs(value) <= _MAX_NUMBER for value in values), "number")


def checked_deliveries(statuses: Mapping[str, str]) -> Mapping[str, str]:
    """Return the status of each delivery, by sink. Raises ValueError if one is no status."""
    _check(_DELIVERY_STATUSES.issuperset(statuses.values()), "delivery")
    return statuses


def _check_result(result: PredictionResult) -> None:
    _check_class([result.class_index, result.label], result)
    if result.threshold is not None:
        check_numbers(result.threshold)
    for classes in (result.top, result.labels):
        for one in classes or ():
            _check_class(one, result)
    _check(result.custom is None or isinstance(result.custom, dict), "custom")


def _check_class(found: Any, result: PredictionResult) -> None:
    index, label = found
    _check(type(index) is int and 0 <= index < len(result.prediction) and (label is None or isinstance(label, str)), "class")


def _check(is_valid: bool, what: str) -> None:
    if not is_valid:
        raise ValueError(f"a {what} of the record has a wrong type")
