"""Tasks and batches that a caller may read or change. Every route that has an id of one gets it from here.

                        read     cancel, replay, erase
    of the own owner    yes      yes
    of another owner    admin, read    admin alone
    of no owner         admin, read    admin alone       accepted while the service had no keys

A task that the caller may not have is answered like an unknown id: no answer tells whether another owner has such a task.
"""

from __future__ import annotations

from dataclasses import replace

from api.components import components
from api.security.caller import caller
from inference.access import Caller
from inference.domain import BatchRecord, TaskRecord
from inference.errors import Forbidden
from inference.task_store import SubmissionStore, TaskFilter, TaskPage, no_batch, no_task


def task_access() -> TaskAccess:
    """The tasks and batches that the caller of the current request may have."""
    return TaskAccess(components().services.store, caller())


class TaskAccess:
    """Tasks and batches of a task store, as far as a caller may have them."""

    def __init__(self, store: SubmissionStore, caller: Caller) -> None:
        self._store = store
        self._caller = caller

    def get(self, task_id: str) -> TaskRecord:
        """Return a task to read. Raises TaskNotFound."""
        return self.check(self._store.get(task_id), task_id)

    def check(self, record: TaskRecord | None, task_id: str) -> TaskRecord:
        """Return a record to read; None stands for a task that has none. Raises TaskNotFound."""
        if record is None or not self._may_read(record.owner):
            raise no_task(task_id)
        return record

    def get_for_change(self, task_id: str) -> TaskRecord:
        """Return a task to cancel or to run again. Raises TaskNotFound."""
        record = self._store.get(task_id)
        if not self._may_change(record.owner):
            raise no_task(task_id)
        return record

    def get_batch(self, batch_id: str) -> BatchRecord:
        """Return a batch to read. Raises BatchNotFound."""
        batch = self._store.get_batch(batch_id)
        if not self._may_read(batch.owner):
            raise no_batch(batch_id)
        return batch

    def get_batch_for_change(self, batch_id: str) -> BatchRecord:
        """Return a batch to cancel. Raises BatchNotFound."""
        batch = self._store.get_batch(batch_id)
        if not self._may_change(batch.owner):
            raise no_batch(batch_id)
        return batch

    def cancel(self, task_id: str) -> TaskRecord:
        """Cancel a task and return its record. Raises TaskNotFound, TaskAlreadyFinished."""
        if not self._caller.is_admin:
            self.get_for_change(task_id)
        return self._store.cancel(task_id)

    def list_tasks(self, wanted: TaskFilter, *, before: int | None, limit: int) -> TaskPage:
        """Return a page of tasks, as `SubmissionStore.list_tasks`."""
        return self._store.list_tasks(self.narrow(wanted), before=before, limit=limit)

    def narrow(self, wanted: TaskFilter) -> TaskFilter:
        """Return a filter of tasks which the caller may read. Raises Forbidden: the caller has no owner, or names another."""
        if self._caller.sees_all:
            return wanted
        if not self._caller.owner:
            raise Forbidden("tasks are listed for callers with a key alone")
        if wanted.owner not in {"", self._caller.owner}:
            raise Forbidden("this key lists the tasks of its owner alone", field="owner", expected="your own owner, or no owner")
        return replace(wanted, owner=self._caller.owner)

    def _may_read(self, owner: str) -> bool:
        return self._caller.sees_all or self._is_own(owner)

    def _may_change(self, owner: str) -> bool:
        return self._caller.is_admin or self._is_own(owner)

    def _is_own(self, owner: str) -> bool:
        return bool(owner) and owner == self._caller.owner
