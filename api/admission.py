"""Overload is refused at the door, so that what was accepted still meets its deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Generic, TypeVar

from inference.errors import Overloaded, ServiceUnavailable
from inference.remembering import Remembered
from inference.settings import OutboxSettings
from inference.sinks.outbox import OutboxStats
from inference.task_store import TaskStore

T = TypeVar("T")

#: Seconds that a look at a queue or an outbox counts.
_LOOK_AGE_S = 0.5
_MAX_RETRY_AFTER_S = 60.0
#: `Retry-After` while nothing is known of how fast tasks end, and while a sink is down.
_USUAL_RETRY_AFTER_S = 5.0
_SINK_RETRY_AFTER_S = 30.0


class Admission:
    """Decides whether a request is taken, on figures about half a second old."""

    def __init__(
        self,
        store: TaskStore,
        outbox_stats: Callable[[str], OutboxStats],
        limits: OutboxSettings,
        *,
        batch_size: int,
        check_room: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = _RememberedByName(store.queue_stats, clock)
        self._outbox = _RememberedByName(outbox_stats, clock)
        self._limits = limits
        self._batch_size = batch_size
        self._check_room = check_room

    def check(self, queue: str, *, deadline_s: float, sinks: Iterable[str], count: int = 1) -> None:
        """Refuse what would miss its deadline, or whose result would find its outbox full.

        Args:
            count: tasks that come together.

        Raises:
            Overloaded: at the rate at which tasks end now, this one would end too late.
            ServiceUnavailable: a sink has been down for so long that its outbox is over its limit.
            StorageFull: a disk or the record store is nearly full.
        """
        self._check_room()
        stats = self._queue(queue)
        depth = stats.depth + count - 1
        # One batch is no overload, whatever the rate looks like after a quiet time.
        is_more_than_a_batch = depth > self._batch_size
        if is_more_than_a_batch and stats.drain_rate_per_s > 0 and depth / stats.drain_rate_per_s > deadline_s:
            raise Overloaded(
                f"{stats.depth} tasks wait and {stats.drain_rate_per_s:.1f} a second end: "
                f"this one would miss its deadline of {deadline_s:g} s",
                retry_after_s=self.retry_after_s(queue),
            )
        for sink in sinks:
            self._check_outbox(sink)

    def waiting(self, queue: str) -> int:
        """How many tasks wait."""
        return self._queue(queue).depth

    def retry_after_s(self, queue: str) -> float:
        """When half of what waits now will have ended."""
        stats = self._queue(queue)
        if stats.drain_rate_per_s <= 0:
            return _USUAL_RETRY_AFTER_S
        return min(_MAX_RETRY_AFTER_S, stats.depth / 2 / stats.drain_rate_per_s)

    def _check_outbox(self, sink: str) -> None:
        stats = self._outbox(sink)
        if stats.is_over(self._limits):
            raise ServiceUnavailable(
                f"{stats.entries} results wait for {sink}, the oldest for {stats.oldest_age_s:.0f} s: "
                "no more is taken until it catches up",
                retry_after_s=_SINK_RETRY_AFTER_S,
            )


class _RememberedByName(Generic[T]):
    def __init__(self, ask: Callable[[str], T], clock: Callable[[], float]) -> None:
        self._ask = ask
        self._clock = clock
        self._answers: dict[str, Remembered[T]] = {}

    def __call__(self, name: str) -> T:
        if name not in self._answers:
            self._answers[name] = Remembered(partial(self._ask, name), max_age_s=_LOOK_AGE_S, clock=self._clock)
        return self._answers[name]()
