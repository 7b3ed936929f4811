"""Overload is refused at the door, so that what was accepted still meets its deadline.

A task that comes now ends when those before it have ended, and it with them: after

    (running + waiting + new) / rate + how long nothing has ended for, longer than usual

That must be within half of its deadline, so that what was accepted still ends in time where the rate falls to a half, as when
one of two workers leaves or another model is loaded beside. A short queue does not cost any throughput: it is never empty.

The figures are a fifth of a second old. So they refuse early, before anything of a request is stored; what passes is given the
number of tasks that there may be (`Room`) on its way into the record store, which counts exactly.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Generic, TypeVar

from inference.broker import USUAL_PRIORITY
from inference.errors import Overloaded, ServiceUnavailable
from inference.messages import ModelRef
from inference.presence import LoadedModelInfo, WorkerInfo
from inference.remembering import Remembered
from inference.settings import OutboxSettings, WorkerSettings
from inference.sinks.outbox import OutboxStats
from inference.task_store import QueueLoad, Room, SubmissionStore

T = TypeVar("T")

#: Part of a deadline in which a task is to end at the rate of now; those that come together where no other is open may need more.
_SHARE, _SHARE_ALONE = 0.5, 0.9
#: Seconds of work that a warm-up counts for while nothing has ended, and batches after which it does no more.
_WARM_S, _ENOUGH_BATCHES = 1.0, 3.0
#: Part of the rate that those with a priority do not take from the others, whatever they took lately.
_LEAST_SHARE_OF_USUAL = 0.1
#: Part of the rate that those have who come back after `Retry-After`; the rest is for new ones. As in queue_stats.lua.
_FOR_RETURNS = 0.5
#: Seconds that a look at a queue, at an outbox and at the workers counts.
_QUEUE_AGE_S, _OUTBOX_AGE_S, _WORKERS_AGE_S = 0.2, 0.5, 1.0
_MIN_RETRY_AFTER_S, _MAX_RETRY_AFTER_S = 1.0, 60.0
#: `Retry-After` while nothing is known of how fast tasks end, and while a sink is down.
_USUAL_RETRY_AFTER_S = 5.0
_SINK_RETRY_AFTER_S = 30.0


class Admission:
    """Decides whether a request is taken.

    Args:
        workers: those that are up, with what they have loaded.
        worker_settings: how much a worker holds at a time.
    """

    def __init__(
        self,
        store: SubmissionStore,
        outbox_stats: Callable[[str], OutboxStats],
        limits: OutboxSettings,
        *,
        workers: Callable[[], Sequence[WorkerInfo]],
        worker_settings: WorkerSettings,
        check_free_space: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._loads = _RememberedByName(self._look, _QUEUE_AGE_S, clock)
        self._outbox = _RememberedByName(outbox_stats, _OUTBOX_AGE_S, clock)
        self._workers = Remembered(workers, max_age_s=_WORKERS_AGE_S, clock=clock)
        self._limits = limits
        self._check_free_space = check_free_space
        #: tasks that one worker holds at most
        self._window = (worker_settings.prefetch_batches + 1) * worker_settings.max_batch_size
        #: by queue, tasks that were refused since the last look
        self._refused: dict[str, int] = defaultdict(int)

    def check(
        self,
        queue: str,
        *,
        model: ModelRef,
        deadline_s: float,
        sinks: Iterable[str],
        count: int = 1,
        priority: int = USUAL_PRIORITY,
    ) -> Room | None:
        """Refuse what would miss its deadline, or whose result would find its outbox full.

        Gives the room that there is for it; None where that is not known.

        Args:
            model: the version that it is for.
            count: tasks that come together.
            priority: the lowest of them.

        Raises:
            Overloaded: at the rate at which tasks end now, this one would end too late.
            ServiceUnavailable: a sink has been down for so long that its outbox is over its limit.
            StorageFull: a disk or the record store is nearly full.
        """
        self._check_free_space()
        for sink in sinks:
            self._check_outbox(sink)
        load = self._loads(queue)
        rate_per_s = self._rate_per_s(load, model, priority)
        if not rate_per_s:
            return None
        tasks = math.floor((deadline_s * _SHARE - load.stalled_s) * rate_per_s)
        limit = tasks if load.ahead else max(1, math.floor(deadline_s * _SHARE_ALONE * rate_per_s))
        over = load.ahead + count - limit
        if over > 0 and priority == USUAL_PRIORITY:  # how many one with a priority passes, only the store knows
            tasks_before = f"{load.ahead} tasks wait or run" if load.ahead else f"these are {count} tasks"
            raise Overloaded(
                f"{tasks_before} and {rate_per_s:.1f} a second end: too many for a deadline of {deadline_s:g} s",
                retry_after_s=self.retry_after_s(queue, over=over, count=count),
            )
        return Room(max(0, tasks), self._window * self._count_workers(model))

    def retry_after_s(self, queue: str, *, over: int = 0, count: int = 1) -> float:
        """When there will be room, for tasks that are refused now: later for each one that is refused after another.

        Args:
            over: by how many tasks the queue is too full for them.
            count: as many they are.
        """
        load = self._loads(queue)
        returning = load.returning + self._refused[queue]
        self._refused[queue] += count
        if not load.busy_s:
            return _USUAL_RETRY_AFTER_S
        wait_s = load.stalled_s + (max(0, over) + returning / _FOR_RETURNS) * load.busy_s / load.ended
        return min(_MAX_RETRY_AFTER_S, max(_MIN_RETRY_AFTER_S, wait_s))

    def _look(self, queue: str) -> QueueLoad:
        return self._store.queue_load(queue, refused=self._refused.pop(queue, 0))

    def _rate_per_s(self, load: QueueLoad, model: ModelRef, priority: int) -> float:
        """Tasks a second that can be done; 0 where that is not known.

        A worker knows from its warm-up how fast it may be. That counts for `_WARM_S` seconds of work until some batches of this
        version have ended, and while no task is open: then what ended says how much came, not how much can be done.
        """
        knows = load.model == model
        ended, busy_s, batches = (load.ended, load.busy_s, load.batches) if knows else (0.0, 0.0, 0.0)
        warm_s = max(0.0, 1 - batches / _ENOUGH_BATCHES) * _WARM_S
        warm_per_s = self._warm_rate_per_s(model) if warm_s or not load.ahead else 0.0
        if warm_per_s and warm_s:
            ended, busy_s = ended + warm_per_s * warm_s, busy_s + warm_s
        rate_per_s = ended / busy_s if busy_s else 0.0
        if not load.ahead:
            rate_per_s = max(rate_per_s, warm_per_s)
        if priority > USUAL_PRIORITY:
            return rate_per_s
        return max(rate_per_s - load.urgent_per_s, _LEAST_SHARE_OF_USUAL * rate_per_s)

    def _warm_rate_per_s(self, model: ModelRef) -> float:
        """The rate of one worker at its warm-up: several may share a machine."""
        return max(
            (loaded.images_per_s for worker in self._workers() for loaded in worker.models if _is(loaded, model)), default=0.0
        )

    def _count_workers(self, model: ModelRef) -> int:
        return sum(any(loaded.name == model.name for loaded in worker.models) for worker in self._workers())

    def _check_outbox(self, sink: str) -> None:
        stats = self._outbox(sink)
        if stats.is_over(self._limits):
            raise ServiceUnavailable(
                f"{stats.entries} results wait for {sink}, the oldest for {stats.oldest_age_s:.0f} s: "
                "no more is taken until it catches up",
                retry_after_s=_SINK_RETRY_AFTER_S,
            )


def _is(loaded: LoadedModelInfo, model: ModelRef) -> bool:
    return (loaded.name, loaded.version, loaded.digest) == (model.name, model.version, model.digest)


class _RememberedByName(Generic[T]):
    def __init__(self, ask: Callable[[str], T], max_age_s: float, clock: Callable[[], float]) -> None:
        self._ask = ask
        self._max_age_s = max_age_s
        self._clock = clock
        self._answers: dict[str, Remembered[T]] = {}

    def __call__(self, name: str) -> T:
        if name not in self._answers:
            self._answers[name] = Remembered(partial(self._ask, name), max_age_s=self._max_age_s, clock=self._clock)
        return self._answers[name]()
