"""Calls that wait for another server, several at a time."""

from __future__ import annotations

import threading

import pytest

from api.acceptance.thread_pool import BoundedThreadPool


def test_answers_come_in_order() -> None:
    assert BoundedThreadPool(3).map(lambda number: number * 2, range(20), timeout_s=60) == [number * 2 for number in range(20)]
    assert BoundedThreadPool(3).map(str, [], timeout_s=60) == []


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

    BoundedThreadPool(3).map(call, range(9), timeout_s=60)
    assert max(most) <= 3


def test_after_an_error_no_call_begins() -> None:
    begun: list[int] = []
    gate = threading.Event()

    def call(number: int) -> None:
        begun.append(number)
        if number == 1:
            raise ValueError(str(number))
        gate.wait(10)

    calls = BoundedThreadPool(2)
    with pytest.raises(ValueError, match="1"):
        calls.map(call, range(8), timeout_s=60)
    gate.set()
    calls.begin(lambda: None).result(10)
    assert max(begun) <= 2  # the one that the free thread had begun already


def test_a_call_that_hangs_is_not_waited_for() -> None:
    gate, begun, ended = threading.Event(), list[int](), list[int]()

    def call(number: int) -> None:
        begun.append(number)
        gate.wait(60)
        ended.append(number)

    calls = BoundedThreadPool(2)
    with pytest.raises(TimeoutError):
        calls.map(call, range(8), timeout_s=0.1)
    assert ended == []
    gate.set()
    calls.begin(lambda: None).result(10)
    assert sorted(begun) == [0, 1]
