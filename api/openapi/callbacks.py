"""Callback of the operations that accept tasks: the event that the service sends to a task's webhook."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from api.openapi.answer_schemas import TaskFacts, Time
from api.openapi.parts import schema_reference
from inference.webhook import WebhookEvent


class TaskEvent(TypedDict):
    """Event that is sent to a webhook when its task has ended."""

    type: WebhookEvent
    timestamp: Annotated[Time, Field(description="end of the task")]
    data: Annotated[TaskFacts, Field(description="the task; its result is without `prediction`")]


CALLBACK_SCHEMAS: tuple[Any, ...] = (TaskFacts, TaskEvent)

_HEADERS = {
    "webhook-id": "id of the event, the same in each attempt",
    "webhook-timestamp": "time of the attempt, seconds since the epoch",
    "webhook-signature": "signatures of id, timestamp and body, one by each secret: https://www.standardwebhooks.com",
}


def task_callbacks() -> dict[str, Any]:
    """Return the member `callbacks` of an operation that accepts tasks."""
    operation = {
        "operationId": "receive_task_event",
        "summary": "A task has ended",
        "description": "Any answer but 2xx is an error, and the event is sent again; 410 ends that.",
        "parameters": [
            {"name": name, "in": "header", "required": True, "description": text, "schema": {"type": "string"}}
            for name, text in _HEADERS.items()
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema_reference(TaskEvent)}}},
        "responses": {"2XX": {"description": "Received."}, "410": {"description": "No further attempt is made."}},
    }
    return {"task_ended": {"{$request.body#/metadata/webhook/url}": {"post": operation}}}
