"""Work that the worker holds: deliveries (queue messages) and jobs (their items)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from types import MappingProxyType
from typing import TYPE_CHECKING

from inference.domain import Outcome, QueueItem, QueueMessage, TaskStatus, TaskSubmission
from inference.errors import InferenceError, PredictorDied
from inference.lifecycle.task_log import task_fields

if TYPE_CHECKING:
    from inference.tracing.tracer import TraceSpan


class Ending(StrEnum):
    """The way in which an item of a message left the worker."""

    COMMITTED = "committed"  #: this worker wrote its outcome into the record
    DROPPED = "dropped"  #: this worker had nothing to do: the task had ended, or another worker has it


@dataclass
class ItemEnd:
    ending: Ending
    #: how the task ended; for a dropped item None until its record is read, and still None while another worker has the task
    outcome: Outcome | None = None
    #: seconds from the task's last start to its end, if it ran on another worker
    runtime_s: float = 0.0


@dataclass(frozen=True)
class UnregisteredTask:
    """A task that came without a record: it must be accepted before it is leased."""

    request: TaskSubmission
    #: why it cannot run; it ends with this error
    refusal: InferenceError | None = None


@dataclass(frozen=True)
class Retry:
    """The reason why a task runs again."""

    #: starts of predict so far
    attempts: int
    error: InferenceError


def _do_nothing() -> None:
    pass


class _Phase(Enum):
    WAITING = auto()
    STARTED = auto()
    RETRIED = auto()


class Delivery:
    """One queue message that the worker holds; done when its last item has ended.

    Args:
        on_started: called when an item goes to the predictor: the first one, and the first one after `on_retried`.
        on_retried: called when an item runs again because the process of its attempt died, with the reason.
        on_done: called once, with the end of each item. Each of these is called on the thread on which the event happens.
        is_revoked: whether Celery's remote control revoked a task of this message.
        unregistered: items that have no record yet, by task id.
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
        #: called once every item is leased, or known to be another worker's
        self.on_leased: Callable[[], None] = _do_nothing
        self.unregistered = unregistered
        self._on_started = on_started
        self._on_retried = on_retried
        self._on_done = on_done
        self._lock = threading.Lock()
        self._phase = _Phase.WAITING
        self._task_ids = frozenset(item.task_id for item in message.items)
        self._ends: dict[str, ItemEnd] = {}

    def report_start(self) -> None:
        if self._enters(_Phase.STARTED):
            self._on_started()

    def report_retry(self, retry: Retry) -> None:
        if self._enters(_Phase.RETRIED):
            self._on_retried(retry)

    def _enters(self, phase: _Phase) -> bool:
        """Enter a phase; return False if the message is in it already."""
        with self._lock:
            before, self._phase = self._phase, phase
        return before is not phase

    def report_end(self, task_id: str, end: ItemEnd) -> None:
        with self._lock:
            is_new = task_id not in self._ends
            self._ends[task_id] = end
            is_done = is_new and self._ends.keys() == self._task_ids
        if is_done:
            self._on_done(self._ends)


@dataclass(eq=False)
class Job:
    """One item whose lease this worker holds. Times are `time.monotonic()` seconds; timings are ms by step."""

    item: QueueItem
    #: the message that it came in, and any message that delivered it again
    deliveries: list[Delivery]
    #: decode and predict it in a batch of its own
    isolated: bool
    attempt: int
    #: the task's deadline, on this worker's clock
    deadline_at: float
    #: its bytes, if they came with the lease
    image: bytes = b""
    owner: str = ""
    #: that of the request, if it is not the task's own id
    request_id: str = ""
    #: the batch request that it came in
    batch_id: str = ""
    #: slot of the arena that holds its image
    slot: int | None = None
    ready_at: float = 0.0
    timings: dict[str, float] = field(default_factory=dict)
    #: trace context of the task; see inference/tracing/context.py
    trace: str = ""
    #: span of the task from the lease to its end; None if its trace is not kept
    span: TraceSpan | None = None

    @property
    def task_id(self) -> str:
        return self.item.task_id

    @property
    def log_fields(self) -> dict[str, str]:
        """Fields of log lines about it."""
        model = self.deliveries[0].message.model.name if self.deliveries else ""
        return task_fields(self.task_id, self.request_id, self.batch_id, model=model, owner=self.owner, trace=self.trace)

    def report_start(self) -> None:
        for delivery in self.deliveries:
            delivery.report_start()

    def report_retry(self, reason: str) -> None:
        retry = Retry(self.attempt, PredictorDied(reason, task_id=self.task_id))
        for delivery in self.deliveries:
            delivery.report_retry(retry)

    def report_end(self, end: ItemEnd) -> None:
        if self.span is not None:
            _end_span(self.span, self.attempt, end)
        for delivery in self.deliveries:
            delivery.report_end(self.task_id, end)


def _end_span(span: TraceSpan, attempt: int, end: ItemEnd) -> None:
    """End the span of a task; it is marked as failed if the task is."""
    outcome = end.outcome
    span.add({"inference.attempt": attempt, "inference.ending": end.ending.value})
    if outcome is not None:
        span.add({"inference.task.status": outcome.status.value})
        if outcome.model is not None:
            version, size = outcome.model.version, outcome.batch_size
            span.add(
                {"inference.model.name": outcome.model.name, "inference.model.version": version, "inference.batch.size": size}
            )
        if outcome.error is not None and outcome.status is not TaskStatus.CANCELED:
            span.fail(str(outcome.error.get("code")))
    span.end()


class HeldJobs:
    """Jobs whose lease this worker renews, by task id."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}

    def add(self, job: Job) -> None:
        with self._lock:
            self._jobs[job.task_id] = job

    def join(self, task_id: str, delivery: Delivery) -> bool:
        """Add `delivery` to the job that is held already; return False if there is none."""
        with self._lock:
            job = self._jobs.get(task_id)
            if job is not None and delivery not in job.deliveries:
                job.deliveries.append(delivery)
            return job is not None

    def drop(self, job: Job, end: ItemEnd) -> None:
        """End a job: its lease is no longer renewed, and its messages may be acknowledged."""
        with self._lock:
            self._jobs.pop(job.task_id, None)
        job.report_end(end)

    def stop_renewing(self, jobs: Iterable[Job]) -> None:
        """Stop renewing the leases of jobs that have not ended; their messages stay unacknowledged."""
        with self._lock:
            for job in jobs:
                self._jobs.pop(job.task_id, None)

    def task_ids(self) -> list[str]:
        with self._lock:
            return list(self._jobs)

    def __len__(self) -> int:
        return len(self._jobs)
