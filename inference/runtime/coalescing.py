"""Concurrent calls are coalesced: those that come while one call runs are made together by the next.

One caller alone waits for nothing. Uses `threading` only, so that it works in threads and, where gevent has patched it, in
greenlets.
"""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from inference.errors import ServiceUnavailable

A = TypeVar("A")
R = TypeVar("R")


class _PendingCall(Generic[A, R]):
    """One caller."""

    def __init__(self, argument: A) -> None:
        self.argument = argument
        #: set when there is an answer or an error, or when it is to make the next call
        self.woken = threading.Event()
        self.leads = False
        self.has_left = False
        #: there is an answer or an error
        self.is_settled = False
        self.answer: R
        self.error: BaseException | None = None


class CallCoalescer(Generic[A, R]):
    """Calls `call` with the arguments of all callers that have come since the last call.

    An error that is no outage is one caller's own: each call of that group is made again alone. A caller that is killed while
    its call runs leaves the others to the next call.

    Args:
        call: gives an answer for each argument, in order. It may be given an argument again after it has failed.
        weigh: how much of `max_weight` an argument takes.
        max_weight: of the arguments of one call; an argument that is heavier goes alone.
    """

    def __init__(
        self, call: Callable[[Sequence[A]], Sequence[R]], *, weigh: Callable[[A], int] = lambda _: 1, max_weight: int = 64
    ) -> None:
        self._call = call
        self._weigh = weigh
        self._max_weight = max_weight
        self._lock = threading.Lock()
        self._waiting: list[_PendingCall[A, R]] = []
        self._is_running = False

    def __call__(self, argument: A) -> R:
        mine: _PendingCall[A, R] = _PendingCall(argument)
        with self._lock:
            self._waiting.append(mine)
            mine.leads = not self._is_running
            self._is_running = True
        if not mine.leads:
            try:
                mine.woken.wait()
            except BaseException:  # a greenlet may be killed while it waits
                self._leave(mine)
                raise
        if mine.leads:
            self._lead()
        try:
            if mine.error is not None:
                raise mine.error
            return mine.answer
        finally:
            del mine  # the error's traceback has this frame: else each would keep the other, and all that the callers hold

    def _lead(self) -> None:
        """Make one call, which this caller's argument is the first of, and hand the next to the first caller that waits."""
        with self._lock:
            weights = itertools.accumulate(self._weigh(turn.argument) for turn in self._waiting)
            count = max(1, sum(1 for _ in itertools.takewhile(self._max_weight.__ge__, weights)))
            turns = self._waiting[:count]
            del self._waiting[:count]
        try:
            self._settle(turns)
        except BaseException:  # the end of this caller alone
            with self._lock:
                self._waiting[:0] = [turn for turn in turns[1:] if not (turn.is_settled or turn.has_left)]
            raise
        finally:
            self._hand_on()
            for turn in turns:
                if turn.is_settled:
                    turn.woken.set()

    def _settle(self, turns: Sequence[_PendingCall[A, R]]) -> None:
        """Give each an answer, or an error of its own."""
        try:
            answers = self._call([turn.argument for turn in turns])
            for turn, answer in zip(turns, answers, strict=True):
                turn.answer, turn.is_settled = answer, True
        except Exception as error:  # noqa: BLE001 each of them raises it
            if len(turns) > 1 and not isinstance(error, ServiceUnavailable):
                for turn in turns:
                    self._settle([turn])
                return
            for turn in turns:
                turn.error, turn.is_settled = copy.copy(error), True

    def _hand_on(self) -> None:
        """Let the first of those who wait make the next call."""
        with self._lock:
            following = next(iter(self._waiting), None)
            self._is_running = following is not None
            if following is not None:
                following.leads = True
                following.woken.set()

    def _leave(self, turn: _PendingCall[A, R]) -> None:
        """Forget a caller that has ended while it waited; where it was to make the next call, another one is."""
        with self._lock:
            turn.has_left = True
            if turn in self._waiting:
                self._waiting.remove(turn)
        if turn.leads:
            self._hand_on()
