"""Requests, outcomes and records for tests; each call may change some members."""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any

import numpy as np
import orjson

from inference.domain import (
    BatchRequest,
    ImageFormat,
    ImageHeader,
    ModelRef,
    Outcome,
    PredictionResult,
    QueueItem,
    QueueMessage,
    TaskStatus,
    TaskSubmission,
)
from inference.errors import InvalidImage

MODEL = ModelRef("tiny", "1", "sha256:00")
QUEUE = "predict.tiny"
#: No float of these is a short decimal, so that an error of printing and reading shows.
VECTOR = np.array([0.1, 1 / 3, np.float32(np.pi), 1e-38, 3.4e38, -0.0], dtype=np.float32)


def as_sent(value: Any) -> Any:
    """Return the value as the receiver reads it: it crosses Redis and the broker as orjson writes it."""
    return orjson.loads(orjson.dumps(value))


def an_item(task_id: str | None = None) -> QueueItem:
    task_id = task_id or uuid.uuid4().hex
    return QueueItem(task_id, f"uploads/{task_id}", ImageHeader(ImageFormat.PNG))


def a_request(task_id: str | None = None, **changes: Any) -> TaskSubmission:
    """A request of a task id of its own, with a deadline an hour away and no sink."""
    item = an_item(task_id)
    request = TaskSubmission(
        task_id=item.task_id, request_id=f"request-{item.task_id}", model=MODEL, queue=QUEUE, item=item, deadline_s=3600
    )
    return dataclasses.replace(request, **changes)


def a_batch(*entries: TaskSubmission | dict[str, Any], **changes: Any) -> BatchRequest:
    """Batch of these entries, whose tasks get its id."""
    batch_id = uuid.uuid4().hex
    own = (dataclasses.replace(e, batch_id=batch_id) if isinstance(e, TaskSubmission) else e for e in entries)
    return BatchRequest(batch_id, tuple(own), **changes)


def a_message(request: TaskSubmission) -> QueueMessage:
    return QueueMessage(request.model, (request.item,))


def a_success(**changes: Any) -> Outcome:
    result = PredictionResult.from_vector(VECTOR, labels=("ant", "bee", "cat", "dog", "eel", "fox"))
    outcome = Outcome(
        TaskStatus.SUCCEEDED, result, model=MODEL, batch_size=4, timings={"queue_ms": 1.5}, worker="w1", predicted_at_ms=17
    )
    return dataclasses.replace(outcome, **changes)


def a_failure() -> Outcome:
    return Outcome.of_error(TaskStatus.FAILED, InvalidImage("the image is truncated", field="image"), worker="w1")
