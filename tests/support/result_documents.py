"""Documents as a sink gets them."""

from __future__ import annotations

from typing import Any

from support.samples import a_success

from inference.domain import CompletedTask, Outcome
from inference.sinks.protocol import result_document


def an_ended_task(task_id: str, outcome: Outcome | None = None) -> CompletedTask:
    """Task that succeeded, unless `outcome` says otherwise."""
    return CompletedTask(outcome or a_success(), finished_at_ms=3, task_id=task_id, request_id="größer", created_at_ms=1)


def a_document(task_id: str, **changes: Any) -> dict[str, Any]:
    return result_document(an_ended_task(task_id), pipeline_id="pipeline") | changes
