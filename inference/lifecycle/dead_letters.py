"""Dead letters: tasks that are given up after their crashes, kept with their input until an operator replays or discards them."""

from __future__ import annotations

import contextlib
import dataclasses
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from inference.broker import Broker
from inference.domain import Outcome, TaskRecord, TaskStatus, TaskSubmission
from inference.errors import ObjectNotFound, PredictorDied, TaskNotFound
from inference.lifecycle.enqueue import accept
from inference.lifecycle.task_ids import new_task_id
from inference.storage.protocol import ObjectStore, dead_letter_key, upload_key
from inference.task_store.protocol import Commit
from inference.task_store.stores import MaintenanceStore, TaskStore, WorkerStore


def move_to_dead_letters(
    store: WorkerStore | MaintenanceStore, objects: ObjectStore, holder: str, record: TaskRecord, reason: str | None = None
) -> bool:
    """End the task of `record`, which `holder` leases, as a dead letter; False if the holder no longer has the lease.

    The input is copied first: a crash between the steps leaves an unused copy, never a dead letter without input. The next call
    for the task reuses the copy.

    Args:
        reason: default: the number of crashes.
    """
    reason = reason or f"{record.deaths} attempts ended in a dead process"
    error = PredictorDied(f"{reason}; the input is kept for the operator", task_id=record.task_id)
    image = store.get_image(record.task_id)
    try:
        if image:  # the object store may not have it yet
            objects.put(dead_letter_key(record.task_id), image)
        else:
            objects.copy(record.item.object_key, dead_letter_key(record.task_id))
    except ObjectNotFound:
        error = PredictorDied(f"{reason}, and its input is gone")
    commit = Commit(record.task_id, record.attempts, Outcome.of_error(TaskStatus.FAILED, error, worker=holder), dead_letter=True)
    is_moved = store.commit(holder, [commit])[0]
    if not is_moved and not store.is_dead_letter(record.task_id):  # another sweeper did not move it either
        objects.delete(dead_letter_key(record.task_id))
    return is_moved


#: Records that are read from the store in one call.
_RECORDS = 500


class DeadLetters:
    """Operations of an operator on dead letters."""

    def __init__(self, store: TaskStore, objects: ObjectStore, broker: Broker) -> None:
        self._store = store
        self._objects = objects
        self._broker = broker

    def list(self, limit: int) -> Iterator[TaskRecord]:
        """Yield the records of the oldest `limit` dead letters, which are read in portions."""
        task_ids = self._store.list_dead_letters(limit)
        for start in range(0, len(task_ids), _RECORDS):
            yield from filter(None, self._store.get_many(task_ids[start : start + _RECORDS]))

    def inspect(self, task_id: str) -> dict[str, Any]:
        """Return the data of a dead letter as plain data. Raises TaskNotFound."""
        self._check(task_id)
        record = self._store.get(task_id)
        return {
            "task_id": task_id,
            "request_id": record.request_id,
            "owner": record.owner,
            "model": record.model.to_dict(),
            "status": record.status,
            "error": record.outcome.error if record.outcome else None,
            "attempts": record.attempts,
            "refusals": record.refusals,
            "object": dead_letter_key(task_id) if record.deaths else record.item.object_key,
        }

    def replay(self, task_id: str, *, deadline_s: float, sinks: tuple[str, ...]) -> str:
        """Deliver a refused result again, or run an input again as a new task. Returns the id of the task that continues.

        The end of a task never changes, so the input runs again as a task with another id.

        Raises:
            TaskNotFound: the task is not a dead letter, or was erased meanwhile: then nothing of it runs again.
        """
        record = self._store.get(task_id)
        was_refused = "refused" in record.deliveries.values()
        if self._store.redeliver(task_id) or was_refused:  # redeliver returns 0 if the answer to its first call was lost
            return task_id
        self._check(task_id)
        request = self._as_new_task(record, deadline_s, sinks)
        with contextlib.suppress(ObjectNotFound):  # then the new task fails and says so
            self._objects.copy(dead_letter_key(task_id), request.item.object_key)
        accepted = accept(self._store, self._broker, request)
        if not accepted.created:
            self._objects.delete(request.item.object_key)
        with contextlib.suppress(TaskNotFound):  # another operator replayed it meanwhile, or it was erased
            self.discard(task_id)  # after the acceptance, so that a failed replay keeps the dead letter
        if self._store.get_many([task_id]) == [None]:  # erased since it was read: its image must not run again
            self._take_back(accepted.task_id)
            raise TaskNotFound("the task was erased meanwhile", task_id=task_id)
        return accepted.task_id

    def _as_new_task(self, record: TaskRecord, deadline_s: float, sinks: tuple[str, ...]) -> TaskSubmission:
        now = datetime.now(UTC)
        task_id = new_task_id(round(now.timestamp() * 1000), self._store.get_tag())
        return TaskSubmission(
            task_id=task_id,
            request_id=record.request_id,
            model=record.model,
            queue=record.queue,
            item=dataclasses.replace(record.item, task_id=task_id, object_key=upload_key(task_id, now)),
            deadline_s=deadline_s,
            sinks=sinks,
            priority=record.priority,
            webhook=record.webhook,
            owner=record.owner,
            trace=record.trace,
            replay_of=record.task_id,
            idempotency_key=f"replay:{record.task_id}",  # two operators, or a repeated command, start only one task
        )

    def _take_back(self, task_id: str) -> None:
        """Erase a replay; the relay erases its image."""
        (record,) = self._store.get_many([task_id])
        if record is not None:
            object_keys = [record.item.object_key]
            self._store.erase([task_id], erasure_id=uuid.uuid4().hex, owner=record.owner, object_keys=object_keys)
            self._broker.forget(record.queue, [task_id])

    def discard_oldest(self, kept: int) -> int:
        """Discard all but the newest `kept`; returns the number discarded. Raises ServiceUnavailable."""
        surplus = self._store.count_dead_letters() - kept
        if surplus <= 0:
            return 0
        for task_id in self._store.list_dead_letters(surplus):
            with contextlib.suppress(TaskNotFound):  # an operator discarded it meanwhile
                self.discard(task_id)
        return surplus

    def discard_old(self, after_s: float) -> int:
        """Discard those older than `after_s` seconds, a limited number in one call; returns how many.

        Raises ServiceUnavailable.
        """
        old = self._store.list_old_dead_letters(after_s=after_s, limit=_RECORDS)
        for task_id in old:
            with contextlib.suppress(TaskNotFound):  # an operator discarded it meanwhile
                self.discard(task_id)
        return len(old)

    def discard(self, task_id: str) -> None:
        """Delete a dead letter and its input. Raises TaskNotFound."""
        self._check(task_id)
        self._objects.delete(dead_letter_key(task_id))
        self._store.discard_dead_letter(task_id)

    def _check(self, task_id: str) -> None:
        if not self._store.is_dead_letter(task_id):
            raise TaskNotFound(f"{task_id} is not a dead letter", task_id=task_id)
