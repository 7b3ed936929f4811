"""Calls that wait for another server, several at a time."""

from __future__ import annotations

import threading

import pytest

from api.side_by_side import SideBySide


def test_answers_come_in_order() -> None:
    assert SideBySide(3).map(lambda number: number * 2, range(20)) == [number * 2 for number in range(20)]
    assert SideBySide(3).map(str, []) == []


def test_so_many_run_at_a_time_and_no_more() -> None:
    line = threading.Barrier(3)
    running: list[int] = []
    most: list[int] = []

    def call(number: int) -> None:
        running.append(number)
        line.wait(10)  # three are there together, or this breaks
        most.append(len(running))
        line.wait(10)
        running.remove(number)

    SideBySide(3).map(call, range(9))
    assert max(most) <= 3


def test_an_error_comes_once_every_call_has_ended() -> None:
    ended: list[int] = []

    def call(number: int) -> None:
        if number in (2, 5):
            raise ValueError(str(number))
        ended.append(number)

    with pytest.raises(ValueError, match="2"):
        SideBySide(2).map(call, range(8))
    assert sorted(ended) == [0, 1, 3, 4, 6, 7]
