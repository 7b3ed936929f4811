"""What the worker holds: deliveries (queue messages) and jobs (their items)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from types import MappingProxyType

from inference.domain import Outcome, QueueItem, QueueMessage, TaskSubmission
from inference.errors import InferenceError, PredictorDied


class Ending(StrEnum):
    """How an item of a message left the worker."""

    COMMITTED = "committed"  #: this worker wrote its outcome into the record
    DROPPED = "dropped"  #: nothing was to be done here: it had ended, or is another worker's


@dataclass
class ItemEnd:
    ending: Ending
    #: how the task ended; of a dropped one None until its record was asked, and for good while another worker has it
    outcome: Outcome | None = None
    #: seconds from its last start to its end, where that was elsewhere
    runtime_s: float = 0.0


@dataclass(frozen=True)
class UnregisteredTask:
    """A task that came without a record: to be accepted before it is leased."""

    request: TaskSubmission
    #: why it cannot run; it ends with that
    refusal: InferenceError | None = None


@dataclass(frozen=True)
class Retry:
    """Why a task is to run again."""

    #: starts of predict so far
    attempts: int
    error: InferenceError


def _nothing() -> None:
    pass


class _Phase(Enum):
    WAITING = auto()
    STARTED = auto()
    RETRIED = auto()


class Delivery:
    """One queue message in the worker's hands; done when its last item is.

    Args:
        on_started: called when an item goes to the predictor: the first one, and the first one after `on_retried`.
        on_retried: called when an item is to run again because the process of its attempt died, with what is known of that.
        on_done: called once, with the end of each item. All are called on whichever thread it happens.
        is_revoked: whether Celery's remote control revoked a task of this message.
        unregistered: the items that have no record yet, by task id.
    """

    def __init__(
        self,
        message: QueueMessage,
        *,
        on_started: Callable[[], None],
        on_done: Callable[[dict[str, ItemEnd]], None],
        on_retried: Callable[[Retry], None] = lambda _: None,
        is_revoked: Callable[[str], bool] = lambda _: False,
        unregistered: Mapping[str, UnregisteredTask] = MappingProxyType({}),
    ) -> None:
        self.message = message
        self.is_revoked = is_revoked
        #: called once every item is leased, or found not to be this worker's
        self.on_leased: Callable[[], None] = _nothing
        self.unregistered = unregistered
        self._on_started = on_started
        self._on_retried = on_retried
        self._on_done = on_done
        self._lock = threading.Lock()
        self._phase = _Phase.WAITING
        self._task_ids = frozenset(item.task_id for item in message.items)
        self._ends: dict[str, ItemEnd] = {}

    def item_started(self) -> None:
        if self._enters(_Phase.STARTED):
            self._on_started()

    def item_retried(self, retry: Retry) -> None:
        if self._enters(_Phase.RETRIED):
            self._on_retried(retry)

    def _enters(self, phase: _Phase) -> bool:
        """False where it is in this phase already."""
        with self._lock:
            before, self._phase = self._phase, phase
        return before is not phase

    def item_ended(self, task_id: str, end: ItemEnd) -> None:
        with self._lock:
            is_new = task_id not in self._ends
            self._ends[task_id] = end
            is_done = is_new and self._ends.keys() == self._task_ids
        if is_done:
            self._on_done(self._ends)


@dataclass(eq=False)
class Job:
    """One item that this worker holds the lease of. Times are `time.monotonic()` seconds; timings are ms by step."""

    item: QueueItem
    #: the message it came in, and any that brought it again
    deliveries: list[Delivery]
    #: decode and predict it alone
    isolated: bool
    attempt: int
    #: when the task's deadline is, on this worker's clock
    deadline_at: float
    #: its bytes, where they came with the lease
    image: bytes = b""
    #: slot of the arena that holds its image
    slot: int | None = None
    ready_at: float = 0.0
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def task_id(self) -> str:
        return self.item.task_id

    def started(self) -> None:
        for delivery in self.deliveries:
            delivery.item_started()

    def retried(self, reason: str) -> None:
        retry = Retry(self.attempt, PredictorDied(reason, task_id=self.task_id))
        for delivery in self.deliveries:
            delivery.item_retried(retry)

    def ended(self, end: ItemEnd) -> None:
        for delivery in self.deliveries:
            delivery.item_ended(self.task_id, end)


class HeldJobs:
    """The jobs whose lease this worker renews, by task id."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}

    def add(self, job: Job) -> None:
        with self._lock:
            self._jobs[job.task_id] = job

    def join(self, task_id: str, delivery: Delivery) -> bool:
        """Let `delivery` share the job that is held already; False if there is none."""
        with self._lock:
            job = self._jobs.get(task_id)
            if job is not None and delivery not in job.deliveries:
                job.deliveries.append(delivery)
            return job is not None

    def drop(self, job: Job, end: ItemEnd) -> None:
        """The job is over: no more lease, and its messages may be acknowledged."""
        with self._lock:
            self._jobs.pop(job.task_id, None)
        job.ended(end)

    def let_go(self, jobs: Iterable[Job]) -> None:
        """Stop renewing jobs that are given back; their messages stay unacknowledged."""
        with self._lock:
            for job in jobs:
                self._jobs.pop(job.task_id, None)

    def task_ids(self) -> list[str]:
        with self._lock:
            return list(self._jobs)

    def __len__(self) -> int:
        return len(self._jobs)
