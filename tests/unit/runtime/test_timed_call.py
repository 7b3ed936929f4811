"""Calls that may hang: their callers wait for a while, and they are not made again meanwhile."""

from __future__ import annotations

import threading

import pytest

from inference.errors import ServiceUnavailable
from inference.runtime.timed_call import TimedCall


def test_returns_or_raises_what_the_call_does() -> None:
    assert TimedCall(lambda: 7)(10) == 7
    with pytest.raises(ZeroDivisionError):
        TimedCall(lambda: 1 / 0)(10)


def test_a_call_that_hangs_is_not_made_again_until_it_has_ended() -> None:
    gate, begun = threading.Event(), []

    def call() -> int:
        begun.append(None)
        assert gate.wait(20)
        return len(begun)

    timed = TimedCall(call)
    for _ in range(3):
        with pytest.raises(ServiceUnavailable):
            timed(0)
    gate.set()
    assert timed(20) == 1
    assert timed(20) == 2
