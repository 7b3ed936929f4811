"""Protocols of the task store, one for each kind of caller; `TaskStore` joins them, and the Redis adapter implements it.

| protocol | callers |
| --- | --- |
| `TaskReader` | all; the replies need nothing else |
| `SubmissionStore` | the API: accept, read, cancel |
| `WorkerStore` | the Celery worker: lease, start, commit |
| `DeliveryStore` | the relay: delivery of results to sinks |
| `WebhookStore` | the relay: delivery of events to webhooks |
| `ErasureStore` | the API and the relay: erasure of tasks |
| `MaintenanceStore` | sweeper, retention, commands, status |

Each has all methods that its callers need, so some methods are in two protocols. Every call may raise ServiceUnavailable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from inference.access import NO_LIMITS, Limits, OwnerUse
from inference.domain import BatchRecord, BatchRequest, CompletedTask, TaskRecord, TaskSubmission
from inference.task_store.protocol import (
    Accepted,
    AcceptedBatch,
    BatchFill,
    Commit,
    Enqueue,
    ErasureProgress,
    KnownKey,
    Leases,
    Order,
    QueueLoad,
    QueuePlace,
    QueueStats,
    RateChange,
    Reaped,
    ReceiverPause,
    RecordLife,
    Room,
    TaskFilter,
    TaskPage,
    TaskState,
    WebhookStats,
)
from inference.webhook import WebhookDelivery


class TaskReader(Protocol):
    """Reads records."""

    def get(self, task_id: str) -> TaskRecord:
        """Return a record. Raises TaskNotFound."""

    def get_many(self, task_ids: Sequence[str]) -> list[TaskRecord | None]:
        """Return a record for each id; None if there is none."""

    def get_completed(self, task_ids: Sequence[str]) -> list[CompletedTask | None]:
        """Return a completed task for each id; None if it has no record or has not ended. Costs less than `get_many`."""

    def get_states(self, task_ids: Sequence[str]) -> list[TaskState | None]:
        """Return the state of each task, in one step; None if there is no record. Costs a twentieth of `get_many`."""


class SubmissionStore(TaskReader, Protocol):
    """Accepts, reads and cancels tasks."""

    def get_tag(self) -> str:
        """Return six hexadecimal digits that distinguish this store from others; they are made with the first call."""

    def get_upload_secret(self) -> str:
        """Return the secret with which the URLs of uploads are signed; it is made with the first call."""

    def accept(
        self,
        request: TaskSubmission,
        *,
        enqueue: Enqueue | None,
        max_queue_depth: int,
        room: Room | None = None,
        limits: Limits = NO_LIMITS,
    ) -> Accepted:
        """Write the record, and push `enqueue` in the same step.

        Args:
            room: the task is refused if it would exceed this limit, but never if no other task of the queue is open.
            limits: limits of the owner, if the task has one.

        Raises:
            RateLimited, QuotaExceeded: a limit of the owner is reached; nothing was used up.
            Overloaded: `max_queue_depth` tasks of this queue are waiting (0: no limit), or there is no room.
            IdempotencyConflict: the owner has used the key with another fingerprint, or another owner has a task with this id.
        """

    def accept_batch(
        self,
        batch: BatchRequest,
        *,
        enqueue: Sequence[Enqueue],
        max_queue_depth: int,
        rooms: Mapping[str, Room] = MappingProxyType({}),
        limits: Limits = NO_LIMITS,
    ) -> AcceptedBatch:
        """Write the records of a batch and of its tasks, and push `enqueue` in the same step.

        Args:
            rooms: limits by queue, as `room` of `accept`.
            limits: as in `accept`; a batch is one request.

        Raises:
            RateLimited, QuotaExceeded: as in `accept`.
            Overloaded: one of the queues would have more than `max_queue_depth` tasks waiting (0: no limit), or has no room.
            IdempotencyConflict: the owner has used the key with another fingerprint.
        """

    def withdraw(self, task_id: str, *, image_bytes: int = 0) -> bool:
        """Forget a task that cannot be run; return False if it is no longer queued: then it stays.

        The owner's quota of the day gets its image back. A repeated call returns the same answer.

        Args:
            image_bytes: bytes for which its image counted in the quota.
        """

    def withdraw_batch(self, batch_id: str, *, image_bytes: int = 0) -> bool:
        """Forget a batch and its tasks, as `withdraw`; return False if one of them is no longer queued: then all stay."""

    def get_batch(self, batch_id: str) -> BatchRecord:
        """Return a batch. Raises BatchNotFound."""

    def list_tasks(self, wanted: TaskFilter, *, before: int | None = None, limit: int = 50) -> TaskPage:
        """Return a page of the tasks that match, newest first.

        Without a request id, tasks that are no longer among the newest (`task_store.index_max`; of the owner, if the filter names
        one) are not found. If tasks are
        accepted or forgotten between two pages, the others are still returned, and only once. A call examines a bounded number of
        tasks, so a page with fewer than `limit` tasks, or with none, need not be the last.

        Args:
            before: number before which the page begins: None, or `next_before` of the page before, for the same filter.
        """

    def find_idempotent(self, key: str, *, owner: str = "") -> KnownKey | None:
        """Return the task or batch for which the owner used a key; None if the key is not known, or has expired."""

    def cancel(self, task_id: str) -> TaskRecord:
        """Cancel a task and return its record. Raises TaskNotFound, TaskAlreadyFinished."""

    def cancel_many(self, task_ids: Sequence[str]) -> list[bool]:
        """Cancel tasks in one step; return False for each that had ended already, or has no record."""

    def get_places(self, task_ids: Mapping[str, Sequence[str]]) -> dict[str, QueuePlace]:
        """Return the places of waiting tasks by task id, in one step; tasks that no longer wait are left out.

        Args:
            task_ids: ids by queue.
        """

    def get_queue_load(self, queue: str, *, refused: int = 0) -> QueueLoad:
        """Return the figures of a queue for admission.

        Args:
            refused: number of tasks that were refused since the last call, and whose clients were told to try again.
        """

    def keep_image(self, task_id: str, image: bytes) -> bool:
        """Keep the image of a task until the object store takes it; the record says that it is not stored.

        Returns False if it is not kept: there is no such task, or too many images are kept.
        """

    def drop_image(self, task_id: str, *, is_stored: bool) -> None:
        """Delete an image that `keep_image` kept."""

    def get_image(self, task_id: str) -> bytes:
        """Return the inline image as in `WorkerStore`."""

    def get_kept_image(self, task_id: str) -> bytes | None:
        """Return the image that `keep_image` kept; None if there is none."""

    def count_webhooks(self, receiver: str) -> int:
        """Return the number of events that wait for a receiver."""

    def get_owner_use(self, owner: str) -> OwnerUse:
        """Return the use of an owner, and its number of open tasks."""


class WorkerStore(TaskReader, Protocol):
    """Leases, starts and commits tasks."""

    def accept(
        self, request: TaskSubmission, *, enqueue: Enqueue | None, max_queue_depth: int, room: Room | None = None
    ) -> Accepted:
        """Accept as in `SubmissionStore`: the task of a plain Celery client gets its record when a worker has its message."""

    def lease(self, holder: str, task_ids: Sequence[str]) -> Leases:
        """Take the leases of tasks for `holder`, and return a lease with its state for each."""

    def renew(self, holder: str, task_ids: Sequence[str]) -> list[bool]:
        """Renew leases; return for each id whether the holder still has the task."""

    def start(self, holder: str, task_ids: Sequence[str]) -> list[int | None]:
        """Start an attempt of each task and return its number; None if the task is canceled, expired or another holder's."""

    def commit(self, holder: str, commits: Sequence[Commit]) -> list[bool]:
        """Write outcomes, outbox entries and replies in one transaction; return False for each attempt that is not current."""

    def commit_and_start(
        self, holder: str, commits: Sequence[Commit], task_ids: Sequence[str]
    ) -> tuple[list[bool], list[int | None]]:
        """Run `commit`, then `start`, in one round trip. They are two steps: if this raises, one may have been done."""

    def release(self, holder: str, task_ids: Sequence[str]) -> None:
        """End the leases of tasks that have not ended, which wait again; the caller returns their messages too."""

    def note_death(self, holder: str, task_ids: Sequence[str]) -> list[int | None]:
        """Count a crash for each task, since the process that ran them died, and let them run isolated from now on.

        Returns the number of crashes of each task; None if it is another holder's.
        """

    def get_image(self, task_id: str) -> bytes:
        """Return the inline image of an open task; empty if only the object store has the image, or the task has ended."""

    def cancel(self, task_id: str) -> TaskRecord:
        """Cancel a task and return its record. Raises TaskNotFound, TaskAlreadyFinished."""

    def expire_due(self, limit: int) -> list[str]:
        """End up to `limit` tasks whose deadline has passed; return their ids."""

    def is_dead_letter(self, task_id: str) -> bool: ...

    def get_queue_load(self, queue: str) -> QueueLoad:
        """Return the figures of the queue, as in `SubmissionStore`."""

    def expect_change(self, queue: str, change: RateChange) -> None:
        """Announce a change of the rate to admission, for `CHANGE_LIFE_S`."""


class DeliveryStore(TaskReader, Protocol):
    """Notes which results sinks have."""

    def confirm_deliveries(self, sink: str, entries: Sequence[tuple[bytes, str]]) -> None:
        """Note results that a sink has confirmed. A record starts to expire when every sink has confirmed it.

        Args:
            entries: (outbox entry id, task id) of each result.
        """

    def refuse_deliveries(self, sink: str, entries: Sequence[tuple[bytes, str, str]]) -> None:
        """Note results that a sink will never take: each becomes a dead letter, and its record stays.

        Args:
            entries: (outbox entry id, task id, reason) of each result.
        """

    def confirm_erasures(self, sink: str, entries: Sequence[tuple[bytes, str, bool]]) -> None:
        """Note orders of erasures that a sink has carried out.

        Args:
            entries: (outbox entry id, erasure id, whether the sink could erase the result) of each order.
        """


class WebhookStore(TaskReader, Protocol):
    """Hands out events of webhooks, and notes their delivery."""

    def claim_webhooks(self, *, lease_s: float, limit: int, per_receiver: int, in_flight: Mapping[str, int]) -> list[str]:
        """Lease due events to the caller, and return the ids of their tasks.

        An event that is not noted within `lease_s` seconds is due again.

        Args:
            limit: maximum number of events.
            per_receiver: maximum number for one receiver, with those in flight; 1 for a receiver that is down.
            in_flight: by receiver, number of events that the caller is sending.
        """

    def note_webhook(
        self,
        task_id: str,
        receiver: str,
        delivery: WebhookDelivery,
        *,
        retry_in_s: float = 0.0,
        pause: ReceiverPause | None = None,
    ) -> None:
        """Note the delivery after an attempt. A record starts to expire when nothing waits for it.

        Args:
            retry_in_s: seconds until the next attempt, if the delivery is pending.
            pause: the receiver is down, and gets no event during a pause; None: it is up.
        """

    def give_up_webhooks(self, *, after_s: float, limit: int) -> list[str]:
        """Give up to `limit` events up whose tasks ended `after_s` seconds ago; return the ids of these tasks."""

    def get_webhook_stats(self) -> WebhookStats: ...


class ErasureStore(TaskReader, Protocol):
    """Erases tasks."""

    def erase(self, task_ids: Sequence[str], *, erasure_id: str, owner: str, object_keys: Sequence[str]) -> list[str]:
        """Remove all that this store has of tasks in one step, and order the work of other stores.

        A task that has not ended is canceled, so its worker's result is dropped. Waiting callers get TaskCanceled. A
        sink gets its orders through its outbox, behind the results; the objects are listed by `list_object_erasures`.

        Args:
            erasure_id: a new id, by which `get_erasure` returns the progress for a day.
            owner: the caller.
            object_keys: the objects of the tasks.

        Returns:
            The ids of the tasks that had a record.
        """

    def get_erasure(self, erasure_id: str) -> ErasureProgress:
        """Return the progress of an erasure. Raises ErasureNotFound."""

    def list_object_erasures(self, limit: int) -> dict[str, list[str]]:
        """Return the keys of objects that are to be deleted, by erasure id; about `limit` erasures."""

    def end_object_erasure(self, erasure_id: str) -> None:
        """Note that the objects of an erasure are deleted."""


class MaintenanceStore(TaskReader, Protocol):
    """Repairs, removes and counts tasks."""

    def commit(self, holder: str, commits: Sequence[Commit]) -> list[bool]:
        """Commit as in `WorkerStore`."""

    def get_image(self, task_id: str) -> bytes:
        """Return the inline image as in `WorkerStore`."""

    def expire_due(self, limit: int) -> list[str]:
        """End up to `limit` tasks whose deadline has passed; return their ids."""

    def reap(self, holder: str, *, max_attempts: int, limit: int) -> Reaped:
        """Take tasks whose lease has ended from their holders."""

    def get_started_watermarks(self, queue: str) -> dict[Order, int]:
        """Return, by priority and owner, the highest acceptance number of this queue that has started."""

    def find_lost(self, queue: str, *, up_to: Mapping[Order, int] | None, grace_s: float, limit: int) -> list[str]:
        """Find waiting tasks without a lease that were not queued within the last `grace_s` seconds.

        They are marked as queued again now; the caller publishes their messages. A call examines the `limit` waiting tasks that
        follow the tasks of the call before, and starts again after the last task: repeated calls examine all of them.

        Args:
            up_to: by priority and owner, the acceptance number of the last task to examine; others are left out. None: all tasks.
        """

    def get_queue_load(self, queue: str) -> QueueLoad:
        """Return the figures of the queue, as in `SubmissionStore`."""

    def forget_gone(self, queue: str, *, limit: int) -> int:
        """Remove tasks from the queue's figures that neither wait nor run; return how many.

        Their records were evicted, or ended by an older version. A call examines `limit` random tasks in each set of the queue:
        repeated calls find all of them.
        """

    def list_dead_letters(self, limit: int) -> list[str]:
        """Return the ids of up to `limit` dead letters, oldest first."""

    def list_old_dead_letters(self, *, after_s: float, limit: int) -> list[str]:
        """Return the ids of up to `limit` tasks that became dead letters more than `after_s` seconds ago, oldest first."""

    def count_dead_letters(self) -> int: ...

    def is_dead_letter(self, task_id: str) -> bool: ...

    def discard_dead_letter(self, task_id: str) -> bool:
        """Give up refused deliveries; the record expires once every other sink has the result.

        Returns False if the task is not a dead letter.
        """

    def redeliver(self, task_id: str) -> int:
        """Put a result into the outbox of each sink that refused it again; return the number of sinks."""

    def get_tag(self) -> str:
        """Return the tag as in `SubmissionStore`."""

    def find_unknown(self, tag: str, task_ids: Sequence[str]) -> list[str]:
        """Return the ids among `task_ids` that have no record; none if the store has another tag."""

    def get_record_life(self) -> RecordLife:
        """Return for how long records live after their end, in all processes, and since when this is noted."""

    def list_kept_images(self, limit: int) -> list[str]:
        """Return the ids of up to `limit` tasks whose images are kept, oldest first."""

    def get_kept_image(self, task_id: str) -> bytes | None:
        """Return the image that `keep_image` kept; None if there is none."""

    def drop_image(self, task_id: str, *, is_stored: bool) -> None:
        """Delete an image as in `SubmissionStore`."""

    def count_kept_images(self) -> int: ...

    def get_queue_stats(self, queue: str) -> QueueStats: ...

    def get_batch_fill(self, queue: str) -> tuple[BatchFill, ...]:
        """Return the batches that ended in the last 15 minutes, by minute, oldest first; minutes without any are left out."""

    def ping(self) -> None:
        """Check that the store answers. Raises ServiceUnavailable."""


class TaskStore(SubmissionStore, WorkerStore, DeliveryStore, WebhookStore, ErasureStore, MaintenanceStore, Protocol):
    """Task store with the methods of all callers."""
