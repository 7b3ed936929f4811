"""Task object for clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from api.views.problems import problem_document
from api.views.urls import task_url
from inference.domain import Outcome, PredictionResult, TaskRecord, TaskStatus
from inference.errors import InferenceError
from inference.task_store import QueuePlace, SubmissionStore


def result_view(result: PredictionResult, *, with_vector: bool = True) -> dict[str, Any]:
    """The result object of a task that has succeeded."""
    confident = {} if result.confident is None else {"confident": result.confident}
    vector = {"prediction": result.prediction} if with_vector else {}
    return {
        "class": result.class_index,
        "label": result.label,
        "confidence_level": result.confidence_level,
        **confident,
        **result.optional_members(),
        **vector,
    }


def task_view(record: TaskRecord, store: SubmissionStore | None) -> dict[str, Any]:
    """The task object of one task: `task_views` with vectors."""
    return task_views([record], store, with_vectors=True)[0]


def task_views(
    records: Sequence[TaskRecord], store: SubmissionStore | None, *, with_vectors: bool, root: str | None = None
) -> list[dict[str, Any]]:
    """Task objects; one call to the store reads the queue positions of all waiting tasks.

    Args:
        store: None if the store is not available: then the tasks have no positions.
        with_vectors: whether results have the member `prediction`, except those of requests that did not want it.
        root: the prefix of the paths, as in `api.views.urls.prefixed`.
    """
    waiting: dict[str, list[str]] = {}
    for record in records:
        if record.status is TaskStatus.QUEUED:
            waiting.setdefault(record.queue, []).append(record.task_id)
    places = store.get_places(waiting) if waiting and store is not None else {}
    return [
        _task_view(record, places.get(record.task_id), with_vector=with_vectors and record.item.has_prediction, root=root)
        for record in records
    ]


def _task_view(record: TaskRecord, place: QueuePlace | None, *, with_vector: bool, root: str | None) -> dict[str, Any]:
    outcome = record.outcome
    error = InferenceError.from_dict(outcome.error) if outcome and outcome.error else None
    return {
        "task_id": record.task_id,
        "request_id": record.request_id,
        "status": record.status,
        "model": record.ran_on.to_dict(),
        "created_at": _time(record.created_at_ms),
        "started_at": _time(record.started_at_ms),
        "finished_at": _time(record.finished_at_ms),
        "deadline_at": _time(record.deadline_at_ms),
        "result": result_view(outcome.result, with_vector=with_vector) if outcome and outcome.result else None,
        "error": problem_document(error) if error else None,
        "priority": record.priority,
        "batch_id": record.batch_id or None,
        "replay_of": record.replay_of or None,
        "deliveries": [_delivery_view(record, sink, status) for sink, status in record.deliveries.items()],
        "queue": _queue_view(place) if place else None,
        "attempts": record.attempts,
        "timings": timings_view(record.store_ms, outcome, record.finished_at_ms),
        **({} if record.is_image_stored else {"image_stored": False}),
        "batch_size": outcome.batch_size if outcome else None,
        "urls": dict.fromkeys(("self", "cancel"), task_url(record.task_id, root)),
    }


def timings_view(store_ms: float, outcome: Outcome | None, finished_at_ms: int) -> Mapping[str, float]:
    """Milliseconds by step."""
    timings: dict[str, float] = {"store_ms": store_ms}
    if outcome is not None:
        timings |= outcome.timings
        if outcome.predicted_at_ms:
            timings["commit_ms"] = max(0, finished_at_ms - outcome.predicted_at_ms)
    return {name: round(value, 3) for name, value in timings.items()}


def _delivery_view(record: TaskRecord, sink: str, status: str) -> dict[str, str]:
    # The text after the colon is the sink server's and may contain its addresses: only `server.py dead-letters list` shows it.
    reason = record.refusals.get(sink, "").partition(": ")[0]
    return {"sink": sink, "status": status} | ({"reason": reason} if reason else {})


def _queue_view(place: QueuePlace) -> dict[str, Any]:
    rate = place.drain_rate_per_s
    return {"position": place.position, "eta_s": round((place.position + 1) / rate, 3) if rate > 0 else None}


def _time(at_ms: int) -> str | None:
    if not at_ms:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
