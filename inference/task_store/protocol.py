"""Values of the task store, and the transitions of a task record.

    accept ──▶ queued ──start──▶ running ──commit──▶ succeeded | failed
                 ▲  │               │
                 │  └─ cancel, expire ─▶ canceled | expired ◀─ cancel, expire
                 └──── reap: the holder's lease has ended

Every transition is atomic and fenced: a task is committed at most once, and only by the holder and the attempt that run it. Times
are those of the store's clock. Durations are in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from inference.access import OwnerUse
from inference.domain import ModelRef, Outcome, TaskStatus
from inference.errors import BatchNotFound, ErasureNotFound, IdempotencyConflict, TaskNotFound


class LeaseState(StrEnum):
    LEASED = "leased"  #: the holder has the task now
    HELD = "held"  #: another holder has it
    FINISHED = "finished"  #: it has ended already
    UNKNOWN = "unknown"  #: there is no such task


@dataclass
class Lease:
    state: LeaseState
    #: decode and predict it in a batch of its own: a process that had it died
    isolated: bool = False
    #: starts of predict so far
    attempts: int = 0
    created_at_ms: int = 0
    deadline_at_ms: int = 0
    #: the inline image; empty if the image is in the object store
    image: bytes = b""
    owner: str = ""
    #: empty if it is the task's own id
    request_id: str = ""
    #: id of the batch request that it came in; empty for a single request
    batch_id: str = ""
    #: trace context of the task; see inference/tracing/context.py
    trace: str = ""


@dataclass(frozen=True)
class Leases:
    """A `Lease` for each requested id, in order, and the time of the store's clock."""

    leases: tuple[Lease, ...]
    now_ms: int


@dataclass
class Commit:
    """End of one attempt, written only if it is still the current attempt of the task."""

    task_id: str
    #: number that `start` returned
    attempt: int
    outcome: Outcome
    #: keep the record as a dead letter until an operator replays or discards it
    dead_letter: bool = False


@dataclass
class Enqueue:
    """A message to push in the same step as the record (for a Redis broker that is also the task store)."""

    list_key: str
    payload: bytes
    #: wake-up list that a worker waits on; it gets a token if it is empty
    wake_up_key: str = ""
    #: sorted set in which the owner of the message gets a turn; empty if it has none
    turns_key: str = ""
    #: number of items in the message
    cost: int = 1


@dataclass(frozen=True)
class Accepted:
    task_id: str
    #: False if an earlier task had the idempotency key
    created: bool
    #: bytes of all inline images in the store
    inline_bytes: int = 0
    #: use of the owner after this; None without limits
    use: OwnerUse | None = None


@dataclass(frozen=True)
class AcceptedBatch:
    batch_id: str
    #: False if an earlier batch had the idempotency key
    created: bool
    #: as in `Accepted`
    inline_bytes: int = 0
    use: OwnerUse | None = None


@dataclass(frozen=True)
class KnownKey:
    """The task or the batch for which an idempotency key was used."""

    fingerprint: str
    task_id: str | None = None
    batch_id: str | None = None

    def conflict(self) -> IdempotencyConflict:
        """Return the error for a request with the same key and other content."""
        return IdempotencyConflict(
            "the Idempotency-Key was used before with other content",
            field="Idempotency-Key",
            expected="the same images and metadata, or another key",
            task_id=self.task_id,
            batch_id=self.batch_id,
        )


def no_task(task_id: str) -> TaskNotFound:
    """Return the error for a task that has no record, or is another owner's: callers cannot tell which."""
    return TaskNotFound(f"there is no task {task_id}, or it ended too long ago", task_id=task_id)


def no_erasure(erasure_id: str) -> ErasureNotFound:
    """Return the error for an erasure that is not remembered, or is another owner's: callers cannot tell which."""
    return ErasureNotFound(f"there is no erasure {erasure_id}, or it began more than a day ago")


def no_batch(batch_id: str) -> BatchNotFound:
    """Return the error for a batch that has no record, or is another owner's: callers cannot tell which."""
    return BatchNotFound(f"there is no batch {batch_id}, or it ended too long ago", batch_id=batch_id)


@dataclass(frozen=True)
class RecordLife:
    """Period for which records surely exist.

    A task has its record if it was accepted after `since_s` (seconds since the epoch) and within the last `shortest_s` seconds.
    `shortest_s` is at most a day.
    """

    since_s: float
    shortest_s: float


@dataclass(frozen=True)
class Reaped:
    """Tasks whose lease has ended: to be queued again, or out of attempts (leased to the caller, to become dead letters)."""

    requeue: tuple[str, ...]
    exhausted: tuple[str, ...]


@dataclass(frozen=True)
class QueueStats:
    #: tasks accepted and not started
    depth: int
    #: seconds since the oldest of them was accepted; 0 if there is none
    oldest_age_s: float
    #: tasks that end per second; 0 if it is not known, or there is nothing to do
    drain_rate_per_s: float


@dataclass(frozen=True)
class BatchFill:
    """Batches of a queue that ended in one minute."""

    #: 0: the current minute
    minutes_ago: int
    images: int
    batches: int


#: Life of an announced change, seconds: a worker that goes on with it announces it again before.
CHANGE_LIFE_S = 5.0


@dataclass(frozen=True)
class RateChange:
    """Change of the rate of a queue that a worker expects, as it changes the model."""

    #: the version that comes
    model: ModelRef
    #: rate to expect ÷ rate of the version that runs, over 0 and at most 1
    share: float


@dataclass(frozen=True)
class QueueLoad:
    """Figures of a queue for admission."""

    #: tasks accepted and not started
    waiting: int
    #: tasks started and not ended
    running: int
    #: tasks that ended lately, the seconds in which there was work, and the number of batches; older ones count less
    ended: float = 0.0
    busy_s: float = 0.0
    batches: float = 0.0
    #: tasks with a priority above the usual one that ended lately, per second
    urgent_per_s: float = 0.0
    #: seconds, above the usual time, in which no task has ended although tasks wait
    stalled_s: float = 0.0
    #: version of the model that they ran on; None if it is not known
    model: ModelRef | None = None
    #: tasks that were refused and are expected to be sent again
    returning: float = 0.0
    #: None if no worker expects one
    change: RateChange | None = None
    #: by owner, waiting tasks; empty if owners take no turns
    shares: Mapping[str, int] = field(default_factory=dict)

    @property
    def ahead(self) -> int:
        """Number of tasks that have not ended."""
        return self.waiting + self.running

    def ahead_of(self, owner: str, count: int, *, window: int) -> int:
        """Return the number of tasks that have not ended and can be before the last of `count` new ones of an owner.

        Owners take turns, so each of the others has at most as many before it as the owner itself.

        Args:
            window: tasks that workers hold at most, which run before.
        """
        if not owner or not self.shares:
            return self.ahead
        own = self.shares.get(owner, 0)
        others = len(self.shares) - (1 if own else 0)
        return self.running + min(self.waiting, window + own + others * (own + count))


@dataclass(frozen=True)
class Order:
    """Tasks of one priority and owner, which start in the order of their acceptance."""

    priority: int
    #: empty without an owner
    owner: str = ""


@dataclass(frozen=True)
class Room:
    """Limit for the tasks of a queue, so that new ones end in time."""

    #: sum of the running tasks, the waiting tasks that take precedence over the new ones, and the new ones
    tasks: int
    #: tasks that workers hold at most: they take precedence, at any priority
    window: int = 0


@dataclass(frozen=True)
class QueuePlace:
    """Place of a waiting task in its queue."""

    #: waiting tasks of the queue that were accepted before it
    position: int
    #: rate of the queue, as in `QueueStats`
    drain_rate_per_s: float


@dataclass(frozen=True)
class TaskPage:
    """A page of a list of tasks."""

    #: newest first
    task_ids: tuple[str, ...]
    #: number before which the next page begins; None: this is the last page
    next_before: int | None


@dataclass(frozen=True)
class TaskFilter:
    """Conditions for a list of tasks, of which all must hold."""

    #: empty: the newest tasks of all request ids
    request_id: str = ""
    #: empty: any
    statuses: tuple[TaskStatus, ...] = ()
    #: name of the model; empty: any
    model: str = ""
    #: time of acceptance, ms since the epoch: older tasks are left out
    since_ms: int = 0
    #: empty: the tasks of all owners
    owner: str = ""

    @property
    def is_any(self) -> bool:
        """Whether every task matches."""
        return self == TaskFilter()

    def matches(self, state: TaskState) -> bool:
        """Whether the conditions hold for a task, except that for its time of acceptance."""
        return (
            (not self.owner or self.owner == state.owner)
            and (not self.request_id or self.request_id == state.request_id)
            and (not self.statuses or state.status in self.statuses)
            and (not self.model or self.model == state.model)
        )


@dataclass
class TaskState:
    """State of a task, and the values of its record by which lists are filtered."""

    status: TaskStatus
    attempts: int
    request_id: str
    #: name of the model
    model: str
    owner: str = ""


@dataclass(frozen=True)
class WebhookStats:
    """Events that wait, and their receivers."""

    #: events that are not delivered yet
    waiting: int
    #: seconds since the task of the oldest of them ended; 0 if there is none
    oldest_age_s: float
    #: receivers for which events wait
    receivers: int
    #: those of them that did not answer lately
    receivers_down: int


@dataclass(frozen=True)
class ReceiverPause:
    """Pauses of a receiver that is down: the first doubles with each further failure, up to the longest; seconds."""

    first_s: float
    longest_s: float
    #: the receiver's own wish (`Retry-After`)
    least_s: float = 0.0


class ErasureState(StrEnum):
    PENDING = "pending"  #: ordered; done once the store answers
    ERASED = "erased"  #: the store has nothing of the tasks
    CANNOT = "cannot"  #: the store cannot delete, at least one result


@dataclass(frozen=True)
class ErasureProgress:
    """Progress of an erasure, which names none of its tasks."""

    erasure_id: str
    #: of the caller
    owner: str
    #: number of tasks
    tasks: int
    #: by store: `images`, and each sink that has, or was to get, a result
    stores: Mapping[str, ErasureState]

    @property
    def is_done(self) -> bool:
        return ErasureState.PENDING not in self.stores.values()
