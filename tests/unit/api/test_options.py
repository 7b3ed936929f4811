"""Options of a predict request: only what means something by its value counts, wherever it was sent."""

from __future__ import annotations

from typing import Any

import pytest

from api.forms.options import merge_options, read_deadline_s, read_mode, read_model, read_priority, read_sinks
from inference.errors import InvalidRequest
from inference.ids import read_request_id

NONE: tuple[Any, ...] = ([], {}, True, False, [1], {"a": 1})

RIGHT: list[tuple[Any, Any, Any]] = [
    *((read_priority, value, None) for value in (None, "")),
    *((read_priority, value, int(value)) for value in (0, 9, "0", "9", "3")),
    (read_priority, " 3 ", 3),
    *((read_deadline_s, value, 5.0) for value in (5, 5.0, "5", " 5.0 ", "5e0")),
    (read_deadline_s, None, None),
    *((read_model, value, None) for value in (None, "")),
    (read_model, "0", "0"),
    *((read_mode, value, value) for value in (None, "sync", "async")),
    (read_sinks, None, None),
    *((read_sinks, value, ()) for value in ("", " ", ",", [])),
    *((read_sinks, value, ("a", "b")) for value in ("a,b", " a , b ,a", ["a", "b", " a"])),
    *((read_request_id, value, "") for value in (None, "")),
    *((read_request_id, value, str(value)) for value in (0, -7, "0", "x" * 256, " ", "\n")),
]
WRONG: list[tuple[Any, Any]] = [
    *((read, value) for read in (read_priority, read_deadline_s, read_model, read_mode) for value in NONE),
    *((read_sinks, value) for value in ({}, True, False, [1], {"a": 1}, 0, [None], "a," * 1000, ["a"] * 1001)),
    *((read_request_id, value) for value in (*NONE, 1.5, 0.0, "x" * 257, 10**300)),
    *(
        (read_priority, value)
        for value in (-1, 10, 0.0, 1.0, "1.0", " ", "+1", "-1", "٣", "²", "1e0", "0" * 200 + "3", 10**400, "x")
    ),
    *((read_deadline_s, value) for value in (0, 0.0, -1, "", " ", "0", "nan", "inf", "1_0", 10**400, "9" * 5000, "soon", "5s")),
    *((read_mode, value) for value in ("", "Async", 0)),
    *((read_model, value) for value in (0, 1.5)),
]


@pytest.mark.parametrize(("read", "value", "meant"), RIGHT, ids=lambda value: getattr(value, "__name__", str(value)[:20]))
def test_what_is_right(read: Any, value: Any, meant: Any) -> None:
    assert read(value) == meant


@pytest.mark.parametrize(("read", "value"), WRONG, ids=lambda value: getattr(value, "__name__", str(value)[:20] or "empty"))
def test_what_is_wrong(read: Any, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(value)
    assert caught.value.field in ("mode", f"metadata.{read.__name__.removeprefix('read_')}")
    assert len(caught.value.detail) < 200


def test_notes_stay_and_a_field_joins_them() -> None:
    assert merge_options({"note": 1, "model": "a"}, {"mode": "async", "metadata": "…", "command": "predict"}) == {
        "note": 1,
        "model": "a",
        "mode": "async",
    }


def test_a_request_id_of_its_own_takes_precedence() -> None:
    assert merge_options({"request_id": "inside"}, {"request_id": "outside"}) == {"request_id": "outside"}
    assert merge_options({"request_id": "inside"}, {"request_id": ""}) == {"request_id": "inside"}


def test_what_is_wrong_in_one_of_two_places() -> None:
    for inside, outside in ((10, 3), (3, 10)):
        with pytest.raises(InvalidRequest, match="priority is 10"):
            merge_options({"priority": inside}, {"priority": outside})
