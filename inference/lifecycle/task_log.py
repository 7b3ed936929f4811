"""Log lines about tasks: with the ids of the task as fields, and few of them if many tasks end at the same moment."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from inference.domain import TaskRecord
from inference.errors import ServiceUnavailable
from inference.runtime.log_context import log_context
from inference.task_store.stores import TaskReader
from inference.tracing.context import trace_id_of

logger = logging.getLogger(__name__)

#: Maximum number of task ids in a log line.
_MAX_IDS = 10
#: Expired tasks that have a line of their own, in each interval of so many seconds.
_MAX_LINES, _INTERVAL_S = 20, 1.0


def record_context(record: TaskRecord) -> AbstractContextManager[None]:
    """Add the fields of a task to the log lines of the block."""
    return log_context(**record_fields(record))


def record_fields(record: TaskRecord) -> dict[str, str]:
    """Return the fields of log lines about a task."""
    return task_fields(
        record.task_id, record.request_id, record.batch_id, model=record.model.name, owner=record.owner, trace=record.trace
    )


def task_fields(task_id: str, request_id: str, batch_id: str, *, model: str, owner: str, trace: str = "") -> dict[str, str]:
    """Return the fields of log lines about a task; the request id is left out if it is the task's own id.

    Args:
        trace: the task's trace context; empty if it is not known.
    """
    return {
        "request_id": request_id if request_id != task_id else "",
        "task_id": task_id,
        "batch_id": batch_id,
        "model": model,
        "owner": owner,
        "trace_id": trace_id_of(trace),
    }


def log_tasks(to: logging.Logger, message: str, task_ids: Sequence[str], *, level: int = logging.WARNING) -> None:
    """Log a line about several tasks; a single one is its field `task_id`.

    Args:
        message: format with the number of the tasks, then their ids.
    """
    with log_context(task_id=task_ids[0] if len(task_ids) == 1 else ""):
        to.log(level, message, len(task_ids), some_of(task_ids))


def some_of(task_ids: Sequence[str]) -> str:
    """Return the first task ids and the number of the others, for a short log line."""
    more = f" and {len(task_ids) - _MAX_IDS} more" if len(task_ids) > _MAX_IDS else ""
    return ", ".join(task_ids[:_MAX_IDS]) + more


class ExpiryLog:
    """Log of expired tasks: a line for each; beyond `_MAX_LINES` in a second one line for all others of that second.

    Args:
        clock: time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._since = clock()
        self._lines = 0
        #: tasks without a line of their own
        self._others: list[str] = []

    @property
    def room(self) -> int:
        """Number of tasks that have a line of their own now."""
        with self._lock:
            self._begin_interval()
            return _MAX_LINES - self._lines

    def note(self, task_id: str, fields: Mapping[str, str], reason: str) -> None:
        """Log an expired task, or keep its id for `flush`.

        Args:
            fields: of its line, as `task_fields` returns them.
            reason: says where it was, and how late it is.
        """
        with self._lock:
            self._begin_interval()
            if self._lines >= _MAX_LINES:
                self._others.append(task_id)
                return
            self._lines += 1
        with log_context(**fields):
            logger.info("task %s expired: %s", task_id, reason)

    def note_stored(self, store: TaskReader, task_ids: Sequence[str]) -> None:
        """Log tasks that the store has ended, as `note` does."""
        first = task_ids[: self.room]
        try:
            records = store.get_many(first) if first else []
        except ServiceUnavailable:
            records = []
        found = {record.task_id: record for record in records if record is not None}
        for task_id in task_ids:
            if (record := found.get(task_id)) is not None:
                self.note(task_id, record_fields(record), _reason(record))
            else:
                with self._lock:
                    self._others.append(task_id)
        self.flush()

    def flush(self) -> None:
        """Log the tasks that have no line of their own, once the interval has ended."""
        if self._others:
            with self._lock:
                self._begin_interval()

    def _begin_interval(self) -> None:
        """Begin an interval if the last one has ended, and log the other tasks of that."""
        now = self._clock()
        if now - self._since < _INTERVAL_S:
            return
        self._since, self._lines = now, 0
        others, self._others = self._others, []
        if others:
            log_tasks(logger, "%d more tasks expired: %s", others)


def _reason(record: TaskRecord) -> str:
    late_s = max(0, record.finished_at_ms - record.deadline_at_ms) / 1000
    where = f"attempt {record.attempts} had begun" if record.attempts else "it waited, and no attempt had begun"
    return f"its deadline passed {late_s:.1f} s ago; {where}"
