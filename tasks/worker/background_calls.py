"""Calls of the task store for Celery's main loop, on a thread of their own: a store that is down must not delay heartbeats."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from inference.broker.rejected import RejectedMessages
from inference.domain import Outcome, TaskRecord, TaskStatus
from inference.errors import TaskAlreadyFinished, TaskNotFound
from inference.lifecycle.task_log import ExpiryLog, record_context
from inference.task_store.stores import WorkerStore
from tasks.pipeline.jobs import Ending, ItemEnd
from tasks.pipeline.stage import Stage

logger = logging.getLogger(__name__)

#: Tasks that are ended in one call because their deadline has passed.
_EXPIRE_LIMIT = 1000

Ends = Mapping[str, ItemEnd]


class BackgroundStoreCalls(Stage):
    """Runs calls in their order, each until the store answers.

    Calls that are left at a stop are dropped: their messages are delivered again.
    """

    name = "store_calls"

    def __init__(self, store: WorkerStore, rejected: RejectedMessages) -> None:
        super().__init__()
        self._store = store
        self._rejected = rejected
        self._expired = ExpiryLog()
        self._inbox: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()

    def submit(self, call: Callable[[], object]) -> None:
        """Run `call` once the calls before it are done; repeat it while it raises ServiceUnavailable."""
        self._inbox.put(call)

    def resolve_outcomes(self, ends: Ends, then: Callable[[Ends], None]) -> None:
        """Call `then` with the same ends, in which tasks that ended on another worker have the outcome of their record."""
        if all(end.outcome is not None for end in ends.values()):
            then(ends)
        else:
            self._inbox.put(lambda: then(self._with_outcomes(ends)))

    def cancel(self, task_ids: Sequence[str], *, running: bool) -> None:
        """Cancel tasks; the running ones only if `running`."""
        self._inbox.put(lambda: self._cancel(task_ids, running=running))

    def put_aside(self, queue_name: str, content: Mapping[str, Any], reason: str, then: Callable[[], None]) -> None:
        """Keep a message that cannot be read, and call `then` once it is kept."""

        def keep() -> None:
            message_id = self._rejected.add(queue_name, content, reason)
            logger.error("a message of %s is put aside as %s: %s", queue_name, message_id, reason)
            then()

        self._inbox.put(keep)

    def step(self) -> None:
        self._expired.flush()
        try:
            call = self._inbox.get(timeout=0.5)
        except queue.Empty:
            return
        try:
            self.until_available(call, give_up=self.stopping.is_set)
        except Exception:
            # The message of this call stays unacknowledged and is delivered again; other messages are not affected.
            logger.exception("a call of the task store failed")

    def _with_outcomes(self, ends: Ends) -> Ends:
        dropped = [task_id for task_id, end in ends.items() if end.outcome is None]
        records = self._store.get_many(dropped)
        if any(record is not None and record.outcome is None for record in records):
            # Another worker has the task; or its deadline has passed, and it has not been ended yet.
            self._expired.note_stored(self._store, self._store.expire_due(_EXPIRE_LIMIT))
            records = self._store.get_many(dropped)
        return {**ends, **{task_id: _end_of(task_id, record) for task_id, record in zip(dropped, records, strict=True)}}

    def _cancel(self, task_ids: Sequence[str], *, running: bool) -> None:
        for record in self._store.get_many(task_ids):
            if record is None or (record.status is TaskStatus.RUNNING and not running):
                continue
            try:
                self._store.cancel(record.task_id)
            except (TaskAlreadyFinished, TaskNotFound) as error:
                with record_context(record):
                    logger.info("the revoke of %s has no effect: %s", record.task_id, error)


def _end_of(task_id: str, record: TaskRecord | None) -> ItemEnd:
    if record is not None:
        runtime_s = (record.finished_at_ms - record.started_at_ms) / 1000 if record.started_at_ms else 0.0
        return ItemEnd(Ending.DROPPED, record.outcome, max(0.0, runtime_s))
    gone = TaskNotFound("the task's record is gone: the task was withdrawn, or it ended too long ago", task_id=task_id)
    return ItemEnd(Ending.DROPPED, Outcome.of_error(TaskStatus.FAILED, gone))
