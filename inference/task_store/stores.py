"""The task store as each kind of caller needs it; `TaskStore` is all of them, and what Redis implements.

| protocol | callers |
| --- | --- |
| `TaskReader` | all; alone, the replies |
| `SubmissionStore` | the API: accept, ask, cancel |
| `WorkerStore` | the Celery worker: lease, start, commit |
| `DeliveryStore` | the relay: results on their way to sinks |
| `MaintenanceStore` | sweeper, retention, commands, status |

Each says all that its callers need, so that some methods are in two. Every call may raise ServiceUnavailable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from inference.domain import BatchRecord, BatchRequest, CompletedTask, TaskRecord, TaskSubmission
from inference.task_store.protocol import (
    Accepted,
    AcceptedBatch,
    Commit,
    Enqueue,
    KnownKey,
    Leases,
    QueueLoad,
    QueuePlace,
    QueueStats,
    Reaped,
    RecordLife,
    Room,
    TaskPage,
)


class TaskReader(Protocol):
    """Reading records."""

    def get(self, task_id: str) -> TaskRecord:
        """Raises TaskNotFound."""

    def get_many(self, task_ids: Sequence[str]) -> list[TaskRecord | None]: ...

    def get_completed(self, task_ids: Sequence[str]) -> list[CompletedTask | None]:
        """As `get_many`, for less: None for each that has not ended too."""


class SubmissionStore(TaskReader, Protocol):
    """Accepting tasks, asking for them and canceling them."""

    def tag(self) -> str:
        """Six hexadecimal digits that tell this store from others; made with the first call."""

    def accept(
        self, request: TaskSubmission, *, enqueue: Enqueue | None, max_queue_depth: int, room: Room | None = None
    ) -> Accepted:
        """Write the record, and push `enqueue` in the same step.

        Args:
            room: the task is refused where it is more than that; never where no other task of the queue is open.

        Raises:
            Overloaded: `max_queue_depth` tasks of this queue are waiting (0: no limit), or there is no room.
            IdempotencyConflict: the key was used with another fingerprint.
        """

    def accept_batch(
        self,
        batch: BatchRequest,
        *,
        enqueue: Sequence[Enqueue],
        max_queue_depth: int,
        rooms: Mapping[str, Room] = MappingProxyType({}),
    ) -> AcceptedBatch:
        """Write the records of a batch and of its tasks, and push `enqueue` in the same step.

        Args:
            rooms: by queue, as `room` of `accept`.

        Raises:
            Overloaded: one of the queues would have more than `max_queue_depth` tasks waiting (0: no limit), or has no room.
            IdempotencyConflict: the key was used with another fingerprint.
        """

    def withdraw(self, task_id: str) -> bool:
        """Forget a task that cannot be run; False when it is queued no more, and stays. Called again it answers the same."""

    def withdraw_batch(self, batch_id: str) -> bool:
        """Forget a batch and its tasks, as `withdraw`; False when one of them is queued no more, and all stay."""

    def get_batch(self, batch_id: str) -> BatchRecord:
        """Raises BatchNotFound."""

    def find_by_request(self, request_id: str, *, after: int = 0, limit: int = 100) -> TaskPage:
        """The tasks with this request id, oldest first, a page at a time.

        Tasks that are accepted or forgotten meanwhile make no other be missed or come twice. A page may have fewer than `limit`
        tasks, or none, and not be the last.

        Args:
            after: acceptance number that the page begins after: 0, or `next_after` of the page before.
        """

    def find_idempotent(self, key: str) -> KnownKey | None:
        """What an idempotency key stands for; None when it is not known, or no more."""

    def cancel(self, task_id: str) -> TaskRecord:
        """Raises TaskNotFound, TaskAlreadyFinished."""

    def cancel_many(self, task_ids: Sequence[str]) -> list[bool]:
        """In one step; False for each that had ended already, or that is not there."""

    def places(self, task_ids: Mapping[str, Sequence[str]]) -> dict[str, QueuePlace]:
        """The places of tasks, given by queue and answered by task id, in one step; none for those that wait no more."""

    def queue_load(self, queue: str, *, refused: int = 0) -> QueueLoad:
        """Figures of the queue for acceptance.

        Args:
            refused: tasks that were refused since the last call, and told to come again.
        """

    def keep_image(self, task_id: str, image: bytes) -> bool:
        """Keep the image of a task until the object store takes it; its record tells that it is not stored.

        False where it is not kept: there is no such task, or too many images are kept.
        """

    def drop_image(self, task_id: str, *, is_stored: bool) -> None:
        """Forget an image that `keep_image` kept."""


class WorkerStore(TaskReader, Protocol):
    """Running tasks."""

    def accept(
        self, request: TaskSubmission, *, enqueue: Enqueue | None, max_queue_depth: int, room: Room | None = None
    ) -> Accepted:
        """As in `SubmissionStore`: a task that a plain Celery client queued gets its record once a worker has its message."""

    def lease(self, owner: str, task_ids: Sequence[str]) -> Leases: ...

    def renew(self, owner: str, task_ids: Sequence[str]) -> list[bool]:
        """For each id whether it is still the owner's."""

    def start(self, owner: str, task_ids: Sequence[str]) -> list[int | None]:
        """Count an attempt and mark it running; None where it may not run any more (canceled, expired, not the owner's)."""

    def commit(self, owner: str, commits: Sequence[Commit]) -> list[bool]:
        """Write outcomes, outbox entries and replies in one transaction; False where the attempt was no longer the task's."""

    def commit_and_start(
        self, owner: str, commits: Sequence[Commit], task_ids: Sequence[str]
    ) -> tuple[list[bool], list[int | None]]:
        """`commit`, then `start`, for less: no step of its own, so that one may have been done where this raises."""

    def release(self, owner: str, task_ids: Sequence[str]) -> None:
        """Give back tasks that have not ended; the caller gives their messages back too."""

    def note_death(self, owner: str, task_ids: Sequence[str]) -> list[int | None]:
        """The process that ran them died: count it, run them alone from now on.

        Gives how often that happened to each; None where it is not the owner's.
        """

    def image(self, task_id: str) -> bytes:
        """What an open task was accepted with; empty where the object store has it alone, or the task has ended."""

    def cancel(self, task_id: str) -> TaskRecord:
        """Raises TaskNotFound, TaskAlreadyFinished."""

    def expire_due(self, limit: int) -> list[str]:
        """End tasks whose deadline has passed; gives their ids."""

    def is_dead_letter(self, task_id: str) -> bool: ...


class DeliveryStore(TaskReader, Protocol):
    """Noting which results sinks have."""

    def confirm_deliveries(self, sink: str, entries: Sequence[tuple[bytes, str]]) -> None:
        """(outbox entry id, task id) that a sink has confirmed. A record starts to expire when every sink has."""

    def refuse_deliveries(self, sink: str, entries: Sequence[tuple[bytes, str, str]]) -> None:
        """(outbox entry id, task id, reason) that a sink will never take: each becomes a dead letter, its record stays."""


class MaintenanceStore(TaskReader, Protocol):
    """Mending, removing and counting."""

    def commit(self, owner: str, commits: Sequence[Commit]) -> list[bool]:
        """As in `WorkerStore`."""

    def image(self, task_id: str) -> bytes:
        """As in `WorkerStore`."""

    def expire_due(self, limit: int) -> list[str]:
        """End tasks whose deadline has passed; gives their ids."""

    def reap(self, owner: str, *, max_attempts: int, limit: int) -> Reaped:
        """Take tasks from owners whose lease ran out."""

    def started_watermarks(self, queue: str) -> dict[int, int]:
        """By priority, the highest acceptance number of this queue that has started."""

    def find_lost(self, queue: str, *, up_to: Mapping[int, int] | None, grace_s: float, limit: int) -> list[str]:
        """Waiting tasks without a lease that were not queued again within `grace_s`.

        Marks them as queued again now; the caller publishes their messages. Looks at the `limit` waiting tasks that come after
        those of the call before, and begins anew after the last: calls in a row look at all of them.

        Args:
            up_to: by priority, the acceptance number of the last that counts, and no other priority; None: all of them.
        """

    def forget_gone(self, queue: str, *, limit: int) -> int:
        """Take tasks off the queue's figures that neither wait nor run: their records were evicted, or ended by an older version.

        Looks at `limit` at random of those that wait, and of those that run: calls in a row find all of them. Gives how many.
        """

    def dead_letters(self, limit: int) -> list[str]:
        """Ids of buried tasks, oldest first."""

    def count_dead_letters(self) -> int: ...

    def is_dead_letter(self, task_id: str) -> bool: ...

    def discard_dead_letter(self, task_id: str) -> bool:
        """Give up what sinks refused, and let the record expire once every other sink has it; False if it is no dead letter."""

    def redeliver(self, task_id: str) -> int:
        """Give what sinks refused to them again; gives how many sinks that are."""

    def tag(self) -> str:
        """As in `SubmissionStore`."""

    def unknown(self, tag: str, task_ids: Sequence[str]) -> list[str]:
        """The ids among `task_ids` that have no record; none where the store has another tag."""

    def record_life(self) -> RecordLife:
        """How long records live after their end, whoever ended them, and as long as that has been noted."""

    def kept_images(self, limit: int) -> list[str]:
        """Ids of the tasks whose images are kept, oldest first."""

    def kept_image(self, task_id: str) -> bytes | None: ...

    def drop_image(self, task_id: str, *, is_stored: bool) -> None:
        """As in `SubmissionStore`."""

    def count_kept_images(self) -> int: ...

    def queue_stats(self, queue: str) -> QueueStats: ...

    def ping(self) -> None:
        """Raises ServiceUnavailable."""


class TaskStore(SubmissionStore, WorkerStore, DeliveryStore, MaintenanceStore, Protocol):
    """All of it."""
