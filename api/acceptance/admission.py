"""Admission control: refuse tasks under overload before anything is stored, so that accepted tasks meet their deadlines.

The estimate is that a new task ends together with the tasks before it, after

    (running + waiting + new) / rate + time since the last task ended, beyond the usual

seconds. That must be within `_SHARE` of its deadline, so that accepted tasks still end in time if the rate falls to little more
than half, for example when one of two workers stops. A short queue costs no throughput as long as it is never empty.

The figures are read in the background and are up to some tenths of a second old. Between two readings, the tasks that this
process has accepted are added, and the tasks that end at the rate are subtracted: otherwise tasks would be accepted in bursts,
and the workers would have nothing to do between them. Admitted tasks that the task store has not accepted yet count as well:
requests wait there while images, or the log of the store's server, are written slowly. An admitted task carries the allowed
number of open tasks (`Room`) to the task store, which counts exactly; that number has a slightly larger share, since a refusal
there costs several times as much.
"""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from inference.broker import USUAL_PRIORITY
from inference.domain import ModelRef
from inference.errors import Overloaded, ServiceUnavailable
from inference.rollout.worker_registry import LoadedModelInfo, WorkerInfo
from inference.runtime.ttl_cache import TtlCache, run_in_thread
from inference.settings import OutboxSettings, WorkerSettings
from inference.task_store import QueueLoad, Room, SubmissionStore
from inference.task_store.outbox import OutboxStats

T = TypeVar("T")

#: Share of the deadline within which a task must end at the present rate: by the estimate here, and by the task store's count.
_SHARE, _SHARE_COUNTED = 0.5, 0.6
#: The same for a task of an owner, where owners take turns: half of the rate remains if a second owner comes.
_SHARES_WITH_TURNS = 0.4, 0.45
#: The same for the tasks of one request if no other task is open.
_SHARE_ALONE = 0.9
#: Weight of a warm-up, in seconds of work, while no batch has ended; number of batches after which it has no weight.
_WARM_S, _ENOUGH_BATCHES = 1.0, 3.0
#: Share of the rate that tasks with a priority leave to the other tasks, however many of them ended lately.
_MIN_SHARE_OF_USUAL = 0.1
#: Share of the rate for clients that return after `Retry-After`; the rest is for new requests. As in queue_stats.lua.
_RETURNING_SHARE = 0.5
#: Ages in seconds from which the figures of a queue, of an outbox and of the workers are read again ...
_QUEUE_AGE_S, _OUTBOX_AGE_S, _WORKERS_AGE_S = 0.1, 0.5, 1.0
#: ... and up to which they are read in the background, so that no request waits for them.
_QUEUE_BACKGROUND_AGE_S, _OUTBOX_BACKGROUND_AGE_S, _WORKERS_BACKGROUND_AGE_S = 0.3, 2.0, 3.0
_MIN_RETRY_AFTER_S, _MAX_RETRY_AFTER_S = 1.0, 60.0
#: `Retry-After` while the rate at which tasks end is not known, and while a sink is down.
_USUAL_RETRY_AFTER_S = 5.0
_SINK_RETRY_AFTER_S = 30.0


class Admission:
    """Decides whether a request is accepted.

    Args:
        workers: returns the live workers and the models that they have loaded.
        worker_settings: determine how many tasks a worker holds at a time.
        has_turns: whether owners take turns.
        clock: returns seconds.
        run: starts a call in the background.
    """

    def __init__(
        self,
        store: SubmissionStore,
        outbox_stats: Callable[[str], OutboxStats],
        limits: OutboxSettings,
        *,
        workers: Callable[[], Sequence[WorkerInfo]],
        worker_settings: WorkerSettings,
        has_turns: bool = False,
        check_free_space: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        run: Callable[[Callable[[], None]], None] = run_in_thread,
    ) -> None:
        self._store = store
        self._has_turns = has_turns
        self._clock = clock
        cache = partial(TtlCache, clock=clock, run=run)
        self._figures: _ByName[_Figures] = _ByName(
            self._read_figures, partial(cache, max_age_s=_QUEUE_AGE_S, background_age_s=_QUEUE_BACKGROUND_AGE_S)
        )
        self._outbox: _ByName[OutboxStats] = _ByName(
            outbox_stats, partial(cache, max_age_s=_OUTBOX_AGE_S, background_age_s=_OUTBOX_BACKGROUND_AGE_S)
        )
        self._workers: TtlCache[Sequence[WorkerInfo]] = cache(
            workers, max_age_s=_WORKERS_AGE_S, background_age_s=_WORKERS_BACKGROUND_AGE_S
        )
        self._limits = limits
        self._check_free_space = check_free_space
        self._max_held_tasks = worker_settings.max_held_tasks
        #: by queue, number of tasks that were refused and that were accepted since the last reading
        self._refused: dict[str, int] = defaultdict(int)
        self._accepted: dict[str, int] = defaultdict(int)
        #: by queue, number of tasks on their way into the record store, by owner
        self._admitted: dict[str, Counter[str]] = defaultdict(Counter)

    def check(
        self,
        queue: str,
        *,
        model: ModelRef,
        deadline_s: float,
        sinks: Iterable[str],
        count: int = 1,
        priority: int = USUAL_PRIORITY,
        owner: str = "",
    ) -> Room | None:
        """Refuse tasks that would miss their deadline, or whose results do not fit into an outbox.

        Returns the room for them in the task store; None if it is not known.

        Args:
            model: the version that is to run them.
            count: number of tasks in the request.
            priority: the lowest of their priorities.
            owner: their owner; empty without one.

        Raises:
            Overloaded: at the rate at which tasks end now, they would end too late.
            ServiceUnavailable: a sink has been down for so long that its outbox is over its limit.
            StorageFull: a disk or the task store is nearly full.
        """
        self._check_stores(sinks)
        figures = self._figures(queue)
        rate_per_s = self._rate_per_s(figures.load, model, priority)
        if not rate_per_s:
            return None
        window = self._max_held_tasks * self._count_workers(model)
        open_ahead = self._count_open(queue, figures, rate_per_s)
        if open_ahead and owner:
            open_ahead = max(1, min(open_ahead, figures.load.ahead_of(owner, count, window=window)))
        share, share_counted = _SHARES_WITH_TURNS if owner and self._has_turns else (_SHARE, _SHARE_COUNTED)
        ahead = open_ahead + self._count_admitted(queue, owner, count)
        over = ahead + count - _limit(deadline_s, share, figures.load, rate_per_s, is_alone=not open_ahead)
        if over > 0 and priority == USUAL_PRIORITY:  # only the store knows how many tasks a task with a priority overtakes
            raise self._overloaded(queue, ahead, count, over=over, rate_per_s=rate_per_s, deadline_s=deadline_s)
        return Room(max(0, _permitted(deadline_s * share_counted, figures.load, rate_per_s)), window)

    def _overloaded(self, queue: str, ahead: int, count: int, *, over: int, rate_per_s: float, deadline_s: float) -> Overloaded:
        before = f"{ahead} tasks wait or run" if ahead else f"these are {count} tasks"
        reason = f"{before} and {rate_per_s:.1f} a second end: too many for a deadline of {deadline_s:g} s"
        return Overloaded(reason, retry_after_s=self.retry_after_s(queue, over=over, count=count))

    @contextmanager
    def admitted(self, counts: Mapping[str, int], owner: str) -> Iterator[None]:
        """Count tasks of an owner, by queue, as open from their check to the record store's answer."""
        for queue, count in counts.items():
            self._admitted[queue][owner] += count
        try:
            yield
        finally:
            for queue, count in counts.items():
                self._admitted[queue] -= Counter({owner: count})  # without owners that have none

    def load(self, queue: str) -> QueueLoad:
        """The figures of a queue; they are some tenths of a second old at most."""
        return self._figures(queue).load

    def note_accepted(self, queue: str, count: int = 1) -> None:
        """Count tasks that the record store has accepted, until the next reading."""
        self._accepted[queue] += count

    def _count_open(self, queue: str, figures: _Figures, rate_per_s: float) -> int:
        """Estimate how many tasks wait or run now; 0 if none did at the last reading, so that the store decides."""
        load = figures.load
        if not load.ahead:
            return 0
        ended = 0 if load.stalled_s else math.floor(rate_per_s * (self._clock() - figures.read_at_s))
        return max(1, load.ahead + self._accepted[queue] - ended)

    def _count_admitted(self, queue: str, owner: str, count: int) -> int:
        """Count the tasks on their way into the record store that come before `count` more of an owner.

        Where owners take turns, each other owner has as many turns as this one until the last of its tasks has its own.
        """
        admitted = self._admitted[queue]
        if not (owner and self._has_turns):
            return admitted.total()
        own = admitted[owner]
        return own + sum(min(number, own + count) for other, number in admitted.items() if other != owner)

    def retry_after_s(self, queue: str, *, over: int = 0, count: int = 1) -> float:
        """Seconds after which tasks that are refused now will have room; each refusal makes it later for the next one.

        Args:
            over: number of tasks by which the queue is too full for them.
            count: number of refused tasks.
        """
        load = self._figures(queue).load
        returning = load.returning + self._refused[queue]
        self._refused[queue] += count
        if not load.busy_s:
            return _USUAL_RETRY_AFTER_S
        wait_s = load.stalled_s + (max(0, over) + returning / _RETURNING_SHARE) * load.busy_s / load.ended
        return min(_MAX_RETRY_AFTER_S, max(_MIN_RETRY_AFTER_S, wait_s))

    def _read_figures(self, queue: str) -> _Figures:
        read_at_s, accepted = self._clock(), self._accepted[queue]
        load = self._store.get_queue_load(queue, refused=self._refused.pop(queue, 0))
        self._accepted[queue] = max(0, self._accepted[queue] - accepted)  # another reading may have ended meanwhile
        return _Figures(load, read_at_s)

    def _rate_per_s(self, load: QueueLoad, model: ModelRef, priority: int) -> float:
        """Tasks a second that the workers can finish; 0 if that is not known.

        A worker measures its speed at its warm-up. That has the weight of `_WARM_S` seconds of work until some batches of this
        version have ended. It also counts while no task is open: then the tasks that ended show the demand, not the capacity.
        While workers change the model, the rate is that of the running version, times the ratio that they expect of the next one.
        """
        if load.change is not None and load.model is not None:
            model = load.model
        is_measured = load.model == model
        ended, busy_s, batches = (load.ended, load.busy_s, load.batches) if is_measured else (0.0, 0.0, 0.0)
        warm_s = max(0.0, 1 - batches / _ENOUGH_BATCHES) * _WARM_S
        warm_per_s = self._warm_rate_per_s(model) if warm_s or not load.ahead else 0.0
        if warm_per_s and warm_s:
            ended, busy_s = ended + warm_per_s * warm_s, busy_s + warm_s
        rate_per_s = ended / busy_s if busy_s else 0.0
        if not load.ahead:
            rate_per_s = max(rate_per_s, warm_per_s)
        if load.change is not None and load.change.model != model:
            rate_per_s *= load.change.share
        if priority > USUAL_PRIORITY:
            return rate_per_s
        return max(rate_per_s - load.urgent_per_s, _MIN_SHARE_OF_USUAL * rate_per_s)

    def _warm_rate_per_s(self, model: ModelRef) -> float:
        """The rate of the fastest worker at its warm-up; no sum, because several workers may share a machine."""
        return max(
            (loaded.images_per_s for worker in self._workers() for loaded in worker.models if _is_of(loaded, model)), default=0.0
        )

    def _count_workers(self, model: ModelRef) -> int:
        return sum(any(loaded.name == model.name for loaded in worker.models) for worker in self._workers())

    def _check_stores(self, sinks: Iterable[str]) -> None:
        self._check_free_space()
        for sink in sinks:
            self._check_outbox(sink)

    def _check_outbox(self, sink: str) -> None:
        stats = self._outbox(sink)
        if stats.is_over(self._limits):
            raise ServiceUnavailable(
                f"{stats.entries} results wait for {sink}, the oldest for {stats.oldest_age_s:.0f} s: "
                "no task is accepted until it catches up",
                retry_after_s=_SINK_RETRY_AFTER_S,
            )


def _is_of(loaded: LoadedModelInfo, model: ModelRef) -> bool:
    return (loaded.name, loaded.version, loaded.digest) == (model.name, model.version, model.digest)


def _limit(deadline_s: float, share: float, load: QueueLoad, rate_per_s: float, *, is_alone: bool) -> int:
    """Maximum number of open tasks by the estimate, the new ones included; `is_alone`: no other task is open."""
    if is_alone:
        return max(1, math.floor(deadline_s * _SHARE_ALONE * rate_per_s))
    return _permitted(deadline_s * share, load, rate_per_s)


def _permitted(share_s: float, load: QueueLoad, rate_per_s: float) -> int:
    """Number of tasks that end within `share_s` seconds; negative if nothing has ended for longer than that."""
    return math.floor((share_s - load.stalled_s) * rate_per_s)


@dataclass(frozen=True)
class _Figures:
    load: QueueLoad
    #: time of the reading, on the clock of this process
    read_at_s: float


class _ByName(Generic[T]):
    """Cached answers by name.

    Args:
        ask: fetches the answer for a name.
        cache: makes the cache for one call.
    """

    def __init__(self, ask: Callable[[str], T], cache: Callable[[Callable[[], T]], TtlCache[T]]) -> None:
        self._ask = ask
        self._cache = cache
        self._answers: dict[str, TtlCache[T]] = {}

    def __call__(self, name: str) -> T:
        if name not in self._answers:
            self._answers[name] = self._cache(partial(self._ask, name))
        return self._answers[name]()
