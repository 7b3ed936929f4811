"""The task record and its transitions.

    accept ──▶ queued ──start──▶ running ──commit──▶ succeeded | failed
                 ▲  │               │
                 │  └─ cancel, expire ─▶ canceled | expired ◀─ cancel, expire
                 └──── reap: the owner's lease ran out

Every transition is atomic and fenced: a task commits at most once, and only by the owner and attempt that runs it. Times are
the store's own clock. Durations are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from inference.domain import ModelRef, Outcome
from inference.errors import IdempotencyConflict


class LeaseState(StrEnum):
    LEASED = "leased"  #: the task is the owner's now
    HELD = "held"  #: another owner has it
    FINISHED = "finished"  #: it has ended already
    UNKNOWN = "unknown"  #: there is no such task


@dataclass
class Lease:
    state: LeaseState
    #: decode and predict it alone: it was in the hands of a process that died
    isolated: bool = False
    #: starts of predict so far
    attempts: int = 0
    created_at_ms: int = 0
    deadline_at_ms: int = 0
    #: what it was accepted with; empty where the object store has to be asked
    image: bytes = b""


@dataclass(frozen=True)
class Leases:
    """One `Lease` for each id asked for, in order, and the store's clock at that moment."""

    leases: tuple[Lease, ...]
    now_ms: int


@dataclass
class Commit:
    """The end of one attempt, to be written if the attempt is still the task's own."""

    task_id: str
    #: number that `start` gave
    attempt: int
    outcome: Outcome
    #: keep the record as a dead letter until an operator replays or discards it
    dead_letter: bool = False


@dataclass(frozen=True)
class Enqueue:
    """A message to push in the same step as the record (a Redis broker that is also the record store)."""

    list_key: str
    payload: bytes
    #: list that a worker waits on; an empty one gets a token
    wake_up_key: str = ""


@dataclass(frozen=True)
class Accepted:
    task_id: str
    #: False when the idempotency key brought an earlier task
    created: bool
    #: bytes of all images that the store holds inline, beside their tasks' records
    inline_bytes: int = 0


@dataclass(frozen=True)
class AcceptedBatch:
    batch_id: str
    #: False when the idempotency key brought an earlier batch
    created: bool
    #: as in `Accepted`
    inline_bytes: int = 0


@dataclass(frozen=True)
class KnownKey:
    """What an idempotency key was used for: a task, or a batch of them."""

    fingerprint: str
    task_id: str | None = None
    batch_id: str | None = None

    def conflict(self) -> IdempotencyConflict:
        """The error for other content."""
        return IdempotencyConflict(
            "the Idempotency-Key was used with other content before",
            field="Idempotency-Key",
            expected="the same images and metadata, or another key",
            task_id=self.task_id,
            batch_id=self.batch_id,
        )


@dataclass(frozen=True)
class RecordLife:
    """Each task that was accepted from `since_s` on, seconds since the epoch, and within the last `shortest_s` has its record.

    A day is the most that `shortest_s` says.
    """

    since_s: float
    shortest_s: float


@dataclass(frozen=True)
class Reaped:
    """Tasks whose owner's lease ran out: to be queued again, or out of attempts (leased to the reaper, to be buried)."""

    requeue: tuple[str, ...]
    exhausted: tuple[str, ...]


@dataclass(frozen=True)
class QueueStats:
    #: tasks accepted and not started
    depth: int
    #: seconds since the oldest of them was accepted; 0 when there is none
    oldest_age_s: float
    #: tasks a second that end; 0 when it is not known, or there is nothing to do
    drain_rate_per_s: float


@dataclass(frozen=True)
class QueueLoad:
    """Figures of a queue for acceptance."""

    #: tasks accepted and not started, and started and not ended
    waiting: int
    running: int
    #: tasks that ended lately, the seconds that there was something to do in, and in how many batches: older ones count less
    ended: float = 0.0
    busy_s: float = 0.0
    batches: float = 0.0
    #: tasks with a priority over the usual a second that ended lately
    urgent_per_s: float = 0.0
    #: seconds for which, longer than usual, nothing has ended though something waits
    stalled_s: float = 0.0
    #: what they ran on; None when it is not known
    model: ModelRef | None = None
    #: tasks that were refused and are expected to come again
    returning: float = 0.0

    @property
    def ahead(self) -> int:
        """Tasks that have not ended."""
        return self.waiting + self.running


@dataclass(frozen=True)
class Room:
    """A limit for the tasks of a queue, so that a new one ends in time."""

    #: those that run, those that go before the new ones, and the new ones
    tasks: int
    #: tasks that workers hold at most: these go before, whatever their priority is
    window: int = 0


@dataclass(frozen=True)
class QueuePlace:
    """The place of a waiting task in its queue."""

    #: tasks of the queue that were accepted before it and wait
    position: int
    #: of the queue, as in `QueueStats`
    drain_rate_per_s: float


@dataclass(frozen=True)
class TaskPage:
    """Some of the tasks with one request id."""

    #: oldest first
    task_ids: tuple[str, ...]
    #: acceptance number after which the next page begins; None: there is no more
    next_after: int | None
