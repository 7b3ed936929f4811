"""Tasks whose every attempt ended in a dead process: kept with their input until an operator replays or discards them."""

from __future__ import annotations

import contextlib
import dataclasses
import uuid
from collections.abc import Iterator
from typing import Any

from inference.broker import Broker
from inference.domain import Outcome, TaskRecord, TaskStatus, TaskSubmission
from inference.errors import ObjectNotFound, PredictorDied, TaskNotFound
from inference.lifecycle.enqueue import accept
from inference.storage.protocol import ObjectStore, dead_letter_key
from inference.task_store.protocol import Commit
from inference.task_store.stores import MaintenanceStore, TaskStore, WorkerStore


def move_to_dead_letters(
    store: WorkerStore | MaintenanceStore, objects: ObjectStore, owner: str, record: TaskRecord, reason: str | None = None
) -> bool:
    """End `record`, which `owner` holds, as a dead letter; False where it was no longer the owner's.

    The input is kept first: a crash in between leaves a copy too many, never one too few. The next call for it finds that copy.

    Args:
        reason: default: how many attempts ended in a dead process.
    """
    reason = reason or f"{record.deaths} attempts ended in a dead process"
    error = PredictorDied(f"{reason}; the input is kept for the operator", task_id=record.task_id)
    image = store.image(record.task_id)
    try:
        if image:  # its upload may not have succeeded
            objects.put(dead_letter_key(record.task_id), image)
        else:
            objects.copy(record.item.object_key, dead_letter_key(record.task_id))
    except ObjectNotFound:
        error = PredictorDied(f"{reason}, and its input is gone")
    commit = Commit(record.task_id, record.attempts, Outcome.of_error(TaskStatus.FAILED, error, worker=owner), dead_letter=True)
    is_buried = store.commit(owner, [commit])[0]
    if not is_buried and not store.is_dead_letter(record.task_id):  # nor has another sweeper buried it
        objects.delete(dead_letter_key(record.task_id))
    return is_buried


#: Read from the store in one call.
_RECORDS = 500


class DeadLetters:
    """What an operator does with them."""

    def __init__(self, store: TaskStore, objects: ObjectStore, broker: Broker) -> None:
        self._store = store
        self._objects = objects
        self._broker = broker

    def list(self, limit: int) -> Iterator[TaskRecord]:
        """The oldest `limit` of them, their records read some at a time."""
        task_ids = self._store.dead_letters(limit)
        for start in range(0, len(task_ids), _RECORDS):
            yield from filter(None, self._store.get_many(task_ids[start : start + _RECORDS]))

    def inspect(self, task_id: str) -> dict[str, Any]:
        """Give what is known of one, as plain data. Raises TaskNotFound."""
        self._check(task_id)
        record = self._store.get(task_id)
        return {
            "task_id": task_id,
            "request_id": record.request_id,
            "model": record.model.to_dict(),
            "status": record.status,
            "error": record.outcome.error if record.outcome else None,
            "attempts": record.attempts,
            "refusals": record.refusals,
            "object": dead_letter_key(task_id) if record.deaths else record.item.object_key,
        }

    def replay(self, task_id: str, *, deadline_s: float, sinks: tuple[str, ...]) -> str:
        """Deliver a refused result again, or run an input again as a new task; gives the id of the task that goes on.

        A task that ended stays as it ended: that is why it runs again under an id of its own.

        Raises:
            TaskNotFound: there is no such dead letter.
        """
        record = self._store.get(task_id)
        was_refused = "refused" in record.deliveries.values()
        if self._store.redeliver(task_id) or was_refused:  # 0 too where the answer to its first call got lost
            return task_id
        self._check(task_id)
        new_id = uuid.uuid4().hex
        item = dataclasses.replace(record.item, task_id=new_id, object_key=dead_letter_key(task_id))
        request = TaskSubmission(
            task_id=new_id,
            request_id=record.request_id,
            model=record.model,
            queue=record.queue,
            item=item,
            deadline_s=deadline_s,
            sinks=sinks,
            priority=record.priority,
            idempotency_key=f"replay:{task_id}",  # two operators, or one that tries again, start one task
        )
        accepted = accept(self._store, self._broker, request)
        self._store.discard_dead_letter(task_id)  # last: a replay that fails before leaves it where it is
        return accepted.task_id

    def discard_oldest(self, kept: int) -> int:
        """Discard all but the newest `kept`; gives how many were discarded. Raises ServiceUnavailable."""
        surplus = self._store.count_dead_letters() - kept
        if surplus <= 0:
            return 0
        for task_id in self._store.dead_letters(surplus):
            with contextlib.suppress(TaskNotFound):  # an operator was faster
                self.discard(task_id)
        return surplus

    def discard(self, task_id: str) -> None:
        """Raises TaskNotFound."""
        self._check(task_id)
        self._objects.delete(dead_letter_key(task_id))
        self._store.discard_dead_letter(task_id)

    def _check(self, task_id: str) -> None:
        if not self._store.is_dead_letter(task_id):
            raise TaskNotFound(f"{task_id} is not a dead letter", task_id=task_id)
