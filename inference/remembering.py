"""Answers of another server that many callers need, and that may be a little old."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """Asks again once the last answer is old. While one caller asks, the others go on with what is known.

    Before the first answer everybody asks. What fails is raised, and asked for again by the next caller.

    Args:
        clock: in seconds.
    """

    def __init__(self, ask: Callable[[], T], *, max_age_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._max_age_s = max_age_s
        self._clock = clock
        #: when it was asked for, and the answer
        self._known: tuple[float, T] | None = None

    def __call__(self) -> T:
        known = self._known
        if known is None:
            return self.refresh()
        now, (asked_at, answer) = self._clock(), known
        if now - asked_at < self._max_age_s:
            return answer
        self._known = (now, answer)
        try:
            return self.refresh()
        except BaseException:
            self._known = known
            raise

    def refresh(self) -> T:
        """Ask, whatever the age of the last answer."""
        began = self._clock()
        answer = self._ask()
        self._known = (began, answer)
        return answer

    @property
    def last(self) -> T | None:
        """None before the first answer."""
        return None if self._known is None else self._known[1]
