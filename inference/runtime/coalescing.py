"""Coalesce concurrent calls: the arguments that arrive while one call runs are passed together to the next call.

A single caller does not wait. Uses `threading` only, so that it works in threads and, if gevent has patched it, in greenlets.
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
    """Argument of one caller, and its answer or error."""

    def __init__(self, argument: A) -> None:
        self.argument = argument
        #: set when the answer or error is known, or when this caller must make the next call
        self.woken = threading.Event()
        self.leads = False
        self.has_left = False
        #: whether the answer or error is known
        self.is_settled = False
        self.answer: R
        self.error: BaseException | None = None


class CallCoalescer(Generic[A, R]):
    """Calls `call` with the arguments of all callers that have arrived since the last call.

    After an error other than an outage the calls of the group are repeated one by one, so that each caller gets only its own
    error. If a caller is killed while it makes the call, the next call serves the other callers of its group.

    Args:
        call: returns an answer for each argument, in order. After an error it may get the same argument again.
        weigh: returns the share of `max_weight` that an argument takes.
        max_weight: total weight of the arguments of one call; a heavier argument gets a call of its own.
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
            del mine  # breaks the cycle error → traceback → this frame → error, which would keep the callers' data alive

    def _lead(self) -> None:
        """Make one call, with this caller's argument as the first, then let the first waiting caller make the next call."""
        with self._lock:
            weights = itertools.accumulate(self._weigh(pending.argument) for pending in self._waiting)
            count = max(1, sum(1 for _ in itertools.takewhile(self._max_weight.__ge__, weights)))
            group = self._waiting[:count]
            del self._waiting[:count]
        try:
            self._settle(group)
        except BaseException:  # this caller is killed, the others are not
            with self._lock:
                self._waiting[:0] = [pending for pending in group[1:] if not (pending.is_settled or pending.has_left)]
            raise
        finally:
            self._hand_on()
            for pending in group:
                if pending.is_settled:
                    pending.woken.set()

    def _settle(self, group: Sequence[_PendingCall[A, R]]) -> None:
        """Set the answer, or a copy of the error, of each pending call."""
        try:
            answers = self._call([pending.argument for pending in group])
            for pending, answer in zip(group, answers, strict=True):
                pending.answer, pending.is_settled = answer, True
        except Exception as error:  # noqa: BLE001 each caller raises it
            if len(group) > 1 and not isinstance(error, ServiceUnavailable):
                for pending in group:
                    self._settle([pending])
                return
            for pending in group:
                pending.error, pending.is_settled = copy.copy(error), True

    def _hand_on(self) -> None:
        """Let the first waiting caller make the next call."""
        with self._lock:
            following = next(iter(self._waiting), None)
            self._is_running = following is not None
            if following is not None:
                following.leads = True
                following.woken.set()

    def _leave(self, pending: _PendingCall[A, R]) -> None:
        """Remove a caller that was killed while it waited; if it had to make the next call, let another caller do so."""
        with self._lock:
            pending.has_left = True
            if pending in self._waiting:
                self._waiting.remove(pending)
        if pending.leads:
            self._hand_on()
