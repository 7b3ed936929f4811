"""Preparation of a queue for a change of its model, so that tasks that are accepted before it meet their deadlines after it.

Admission takes as many tasks as end within half of their deadline at the present rate. A version that takes more than twice as
long would find too many of them. A worker therefore announces the rate that it expects, and holds such a version back until the
queue is short enough for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from inference.domain import ModelRef
from inference.errors import ServiceUnavailable
from inference.models.predictor.protocol import Loaded
from inference.task_store import RateChange, WorkerStore

logger = logging.getLogger(__name__)

#: Longest time for which a warm version is held back, seconds, and the interval of the looks at the queue.
_MAX_WAIT_S, _POLL_INTERVAL_S = 10.0, 0.1
#: Share from which on no task that admission accepted before the change is late: it takes half of a deadline.
_HARMLESS_SHARE = 0.5


class QueuePreparation:
    """Announces changes of the rate of a worker's queues."""

    def __init__(
        self,
        store: WorkerStore,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._clock = clock
        self._sleep = sleep

    def announce(self, queue: str, change: RateChange) -> None:
        """Announce a change for `CHANGE_LIFE_S`; a store that does not answer is no reason to give the change up."""
        try:
            self._store.expect_change(queue, change)
        except ServiceUnavailable as error:
            logger.info("cannot announce a change of %s: %s", queue, error)

    def await_short_queue(self, queue: str, change: RateChange, *, give_up: Callable[[], bool]) -> None:
        """Wait until the tasks of the queue end in time at the rate to come, for `_MAX_WAIT_S` at most.

        Let the deadline be D, the rate 1 and the share f. The last of the D / 2 tasks that admission accepts ends in time if the
        change comes after D (1/2 - f) / (1 - f); then f / (1 - f) of them are left.
        """
        if change.share >= _HARMLESS_SHARE:
            return
        ends_at, limit = self._clock() + _MAX_WAIT_S, None
        while self._clock() < ends_at and not give_up():
            self.announce(queue, change)
            try:
                is_open = self._store.get_queue_load(queue).ahead
            except ServiceUnavailable:
                return
            limit = is_open * change.share / (1 - change.share) if limit is None else limit
            if is_open <= limit:
                return
            self._sleep(_POLL_INTERVAL_S)


def expected_change(model: ModelRef, now: Loaded | None, coming: Loaded | None, slowdown: float = 1.0) -> RateChange:
    """Compare the measurements of both processes at their warm-up.

    Args:
        model: the version to come.
        slowdown: how many times as long as at its warm-up a batch of the version that serves takes now. The version to come had
            only a part of the cores at its warm-up, too.
    """
    rates = [0.0 if loaded is None else loaded.images_per_s for loaded in (coming, now)]
    return RateChange(model, min(1.0, rates[0] * slowdown / rates[1]) if all(rates) else 1.0)
