"""Documents as a sink gets them."""

from __future__ import annotations

from typing import Any

from support.samples import MODEL, QUEUE, a_success, an_item

from inference.messages import TaskRecord, TaskStatus
from inference.sinks import result_document


def a_record(task_id: str, **changes: Any) -> TaskRecord:
    """Of a succeeded task."""
    fields: dict[str, Any] = {
        "task_id": task_id,
        "request_id": "größer",
        "model": MODEL,
        "queue": QUEUE,
        "item": an_item(task_id),
        "status": TaskStatus.SUCCEEDED,
        "created_at_ms": 1,
        "deadline_at_ms": 4,
        "finished_at_ms": 3,
        "outcome": a_success(),
    }
    return TaskRecord(**fields | changes)


def a_document(task_id: str, **changes: Any) -> dict[str, Any]:
    return result_document(a_record(task_id), pipeline_id="pipeline") | changes
