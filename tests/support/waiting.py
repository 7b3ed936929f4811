"""Waiting for another thread or server, with a deadline and without fixed sleeps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

#: Far longer than anything here takes: a test that waits this long has failed.
TIMEOUT_S = 15.0
#: Pauses between two looks: short at first, and longer for slow events, since looking takes CPU time from what is waited for.
_FIRST_INTERVAL_S, _MAX_INTERVAL_S, _GROWTH = 0.01, 0.05, 1.1


def until(condition: Callable[[], T], what: str = "the condition", *, timeout_s: float = TIMEOUT_S) -> T:
    """The first truthy answer of `condition`; fails the test when there is none in time."""
    deadline, interval_s = time.monotonic() + timeout_s, _FIRST_INTERVAL_S
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come within {timeout_s:g} s; the last answer was {answer!r}")
        threading.Event().wait(interval_s)
        interval_s = min(_MAX_INTERVAL_S, _GROWTH * interval_s)
    return answer


def together(actions: Sequence[Callable[[], T]]) -> list[T]:
    """Run every action on a thread of its own, all let go at the same moment; their answers in order.

    Raises:
        the first action's exception, in order.
    """
    gate = threading.Barrier(len(actions))
    answers: dict[int, T] = {}
    errors: dict[int, BaseException] = {}

    def run(number: int, action: Callable[[], T]) -> None:
        try:
            gate.wait(TIMEOUT_S)
            answers[number] = action()
        except BaseException as error:  # noqa: BLE001 raised again below, in the test's own thread
            errors[number] = error

    threads = [threading.Thread(target=run, args=(number, action), daemon=True) for number, action in enumerate(actions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(4 * TIMEOUT_S)
    for number in sorted(errors):
        raise errors[number]
    return [answers[number] for number in range(len(actions))]
