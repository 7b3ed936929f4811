"""Cache for one answer of another server that many callers need and that may be a little old."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: An answer this many times as old as it should be is not given to anyone.
_TOO_OLD = 10


def run_in_thread(call: Callable[[], None]) -> None:
    threading.Thread(target=call, daemon=True).start()


class TtlCache(Generic[T]):
    """Cache of one answer, which is fetched again once it is old.

    While one caller fetches, the others use the last answer. Before the first answer, and once the last one is ten times
    as old as it should be, every caller fetches. An error is raised, and the next caller tries again.

    Args:
        ask: fetches the answer.
        max_age_s: age in seconds from which the answer is fetched again.
        background_age_s: age in seconds up to which it is fetched in the background and no caller waits; 0: a caller fetches it.
        clock: in seconds.
        run: starts a call in the background.
    """

    def __init__(
        self,
        ask: Callable[[], T],
        *,
        max_age_s: float,
        background_age_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        run: Callable[[Callable[[], None]], None] = run_in_thread,
    ) -> None:
        self._ask = ask
        self._max_age_s = max_age_s
        self._background_age_s = background_age_s
        self._clock = clock
        self._run = run
        #: time of the request, and the answer
        self._known: tuple[float, T] | None = None
        self._is_refreshing = False

    def __call__(self) -> T:
        known, now = self._known, self._clock()
        if known is None or now - known[0] >= _TOO_OLD * self._max_age_s:
            return self.refresh()
        asked_at, answer = known
        if now - asked_at < self._max_age_s:
            return answer
        if now - asked_at < self._background_age_s:
            self._begin_refresh()
            return answer
        self._known = (now, answer)
        try:
            return self.refresh()
        except BaseException:
            self._known = known
            raise

    def refresh(self) -> T:
        """Fetch the answer, even if the last one is not old."""
        began = self._clock()
        answer = self._ask()
        if self._known is None or self._known[0] <= began:  # else another call that began later has ended before
            self._known = (began, answer)
        return answer

    def _begin_refresh(self) -> None:
        if self._is_refreshing:
            return
        self._is_refreshing = True
        try:
            self._run(self._refresh_in_background)
        except BaseException:
            self._is_refreshing = False
            raise

    def _refresh_in_background(self) -> None:
        try:
            self.refresh()
        except Exception as error:  # noqa: BLE001 a caller gets the error once the answer is older than `background_age_s`
            logger.debug("an answer could not be fetched in the background: %r", error)
        finally:
            self._is_refreshing = False

    @property
    def last(self) -> T | None:
        """The last answer; None before the first one."""
        return None if self._known is None else self._known[1]
