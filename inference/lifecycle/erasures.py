"""Erasure of tasks: nothing of them stays in the record store, the object store, the broker, or a sink that can delete.

    record store (script `erase`) ──▶ waiting messages, rejected messages ──▶ objects ──▶ sinks (by the relay, in their outboxes)

The first step is atomic and orders all others, so a crash after it only delays them: the relay does the rest.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence

from inference.broker import Broker
from inference.broker.rejected import RejectedMessages
from inference.domain import TaskRecord
from inference.errors import InferenceError, ServiceUnavailable, TaskNotFound
from inference.lifecycle.task_images import is_upload
from inference.storage.protocol import ObjectStore, dead_letter_key
from inference.task_store import ErasureProgress, ErasureStore, SubmissionStore, TaskFilter

logger = logging.getLogger(__name__)

#: Time for which an erasure waits for the sinks, and the interval between two looks, seconds.
_WAIT_S, _INTERVAL_S = 2.0, 0.05
#: Erasures of one pass over the objects that are left, and the time until the next, seconds.
_PASS_SIZE, _PASS_INTERVAL_S = 100, 10.0


class Erasures:
    """Erases tasks, and waits for the stores for a short time."""

    def __init__(
        self,
        store: ErasureStore,
        objects: ObjectStore,
        broker: Broker,
        rejected: RejectedMessages,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._objects = objects
        self._broker = broker
        self._rejected = rejected
        self._sleep = sleep

    def erase(self, records: Sequence[TaskRecord], *, owner: str = "") -> ErasureProgress:
        """Erase tasks that the caller may erase.

        Args:
            owner: the caller.

        Raises:
            TaskNotFound: none of them has a record any more.
            ServiceUnavailable: the record store does not answer.
        """
        erasure_id = uuid.uuid4().hex
        keys = [key for record in records for key in _object_keys(record)]
        task_ids = [record.task_id for record in records]
        if not self._store.erase(task_ids, erasure_id=erasure_id, owner=owner, object_keys=keys):
            raise TaskNotFound("the task was erased meanwhile, or has expired", task_id=task_ids[0])
        try:
            self._remove_messages(records)
            _erase_objects(self._store, self._objects, erasure_id, keys)
        except InferenceError as error:  # workers drop the messages; the relay erases the objects
            logger.warning("erasure %s is not complete yet: %s", erasure_id, error)
        return self._wait(erasure_id)

    def _remove_messages(self, records: Sequence[TaskRecord]) -> None:
        waiting: dict[str, list[str]] = defaultdict(list)
        for record in records:
            if not record.status.is_terminal:
                waiting[record.queue].append(record.task_id)
        for queue, task_ids in waiting.items():
            self._broker.forget(queue, task_ids)
        self._rejected.forget([record.task_id for record in records])

    def _wait(self, erasure_id: str) -> ErasureProgress:
        progress = self._store.get_erasure(erasure_id)
        for _ in range(round(_WAIT_S / _INTERVAL_S)):
            if progress.is_done:
                break
            self._sleep(_INTERVAL_S)
            progress = self._store.get_erasure(erasure_id)
        return progress


def find_tasks(store: SubmissionStore, wanted: TaskFilter, *, limit: int) -> tuple[list[TaskRecord], bool]:
    """Return the newest tasks that match, and whether there are more."""
    found: list[TaskRecord] = []
    before: int | None = None
    while True:
        page = store.list_tasks(wanted, before=before, limit=limit)
        found += [record for record in store.get_many(page.task_ids) if record is not None]
        before = page.next_before
        if before is None or len(found) >= limit:
            return found[:limit], before is not None or len(found) > limit


def erase_objects_left(store: ErasureStore, objects: ObjectStore) -> float:
    """Erase objects of earlier erasures; return the seconds until the next call. Raises ServiceUnavailable."""
    for erasure_id, keys in store.list_object_erasures(_PASS_SIZE).items():
        try:
            _erase_objects(store, objects, erasure_id, keys)
        except ServiceUnavailable:
            raise
        except Exception:  # one erasure must not delay the others
            logger.exception("the objects of erasure %s cannot be erased", erasure_id)
    return _PASS_INTERVAL_S


def _erase_objects(store: ErasureStore, objects: ObjectStore, erasure_id: str, keys: Sequence[str]) -> None:
    for key in keys:
        objects.erase(key)
    store.end_object_erasure(erasure_id)


def _object_keys(record: TaskRecord) -> list[str]:
    """Return the keys of a task's own objects: not that of an object that its request only named."""
    uploads = [record.item.object_key] if is_upload(record.item) else []
    return [*uploads, dead_letter_key(record.task_id)]
