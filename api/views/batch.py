"""Batch object for clients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from api.views.problems import problem_document
from api.views.urls import batch_url
from inference.domain import BatchRecord, BatchRequest, Completion, Outcome, TaskRecord, TaskStatus, TaskSubmission
from inference.errors import InferenceError, TaskNotFound
from inference.lifecycle.task_object import result_object

#: Status of an item that was refused and has no task, and of an item whose task record has expired.
REFUSED, GONE = "refused", "gone"
_STATUSES = (*(status.value for status in TaskStatus), REFUSED)
_OPEN = {TaskStatus.QUEUED, TaskStatus.RUNNING}


def ended_batch_view(batch: BatchRequest, ended: Mapping[str, Completion]) -> dict[str, Any]:
    """The batch object of a batch of which every task has ended."""
    items = [ended_item_view(entry, None if isinstance(entry, dict) else ended[entry.task_id].outcome) for entry in batch.entries]
    return _batch_view(batch.batch_id, items)


def ended_item_view(entry: TaskSubmission | dict[str, Any], outcome: Outcome | None) -> dict[str, Any]:
    """One of the batch object's items; `entry` is that of the `BatchRequest`, `outcome` that of its task."""
    if isinstance(entry, dict):
        return _refused_view(entry)
    if outcome is None:
        raise ValueError(f"the task {entry.task_id} has not ended")
    return _task_view(entry, outcome.status, outcome)


def batch_view(batch: BatchRecord, records: Sequence[TaskRecord | None]) -> dict[str, Any]:
    """The batch object; `records` are the task records in the order of `batch.task_ids`."""
    tasks = dict(zip(batch.task_ids, records, strict=True))
    items = [item_view(entry, tasks[entry] if isinstance(entry, str) else None, with_vector=True) for entry in batch.entries]
    return _batch_view(batch.batch_id, items)


def batch_head(batch_id: str, statuses: Iterable[str]) -> dict[str, Any]:
    """The batch object without its items, of which these are the statuses."""
    counts = dict.fromkeys(_STATUSES, 0) | Counter(statuses)
    status = "running" if any(counts[status] for status in _OPEN) else "ended"
    return {"batch_id": batch_id, "status": status, "counts": counts}


def item_view(entry: str | dict[str, Any], record: TaskRecord | None, *, with_vector: bool) -> dict[str, Any]:
    """One of the batch object's items; `entry` is that of the `BatchRecord`."""
    return _refused_view(entry) if isinstance(entry, dict) else _record_view(entry, record, with_vector=with_vector)


def _batch_view(batch_id: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        **batch_head(batch_id, [item["status"] for item in items]),
        "items": items,
        "urls": dict.fromkeys(("self", "cancel"), batch_url(batch_id)),
    }


def _record_view(task_id: str, record: TaskRecord | None, *, with_vector: bool = True) -> dict[str, Any]:
    if record is not None:
        return _task_view(record, record.status, record.outcome, with_vector=with_vector)
    error = TaskNotFound("the task ended too long ago", task_id=task_id)
    return _taskless_view(GONE, error) | {"task_id": task_id}


def _task_view(
    task: TaskSubmission | TaskRecord, status: TaskStatus, outcome: Outcome | None, *, with_vector: bool = True
) -> dict[str, Any]:
    """The members that differ from item to item; the others are at `/tasks/TASK_ID`."""
    error = InferenceError.from_dict(outcome.error) if outcome and outcome.error else None
    has_vector = with_vector and task.item.has_prediction
    return {
        "status": status,
        "task_id": task.task_id,
        "request_id": task.request_id,
        "model": ((outcome and outcome.model) or task.model).to_dict(),
        "result": result_object(outcome.result, with_vector=has_vector) if outcome and outcome.result else None,
        "error": problem_document(error) if error else None,
    }


def status_without_task(error: dict[str, Any]) -> str:
    """The status of an item without a task: it was refused, or its task was erased."""
    return GONE if error["code"] == TaskNotFound.code else REFUSED


def _refused_view(error: dict[str, Any]) -> dict[str, Any]:
    return _taskless_view(status_without_task(error), InferenceError.from_dict(error))


def _taskless_view(status: str, error: InferenceError) -> dict[str, Any]:
    unknown = dict.fromkeys(("task_id", "request_id", "model", "result"))
    return {"status": status} | unknown | {"error": problem_document(error)}
