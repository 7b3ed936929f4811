"""Task object for clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from api.views.urls import task_url
from inference.domain import TaskRecord, TaskStatus
from inference.lifecycle.task_object import task_object
from inference.task_store import QueuePlace, SubmissionStore


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
    return task_object(record, with_vector=with_vector) | {
        "queue": _queue_view(place) if place else None,
        "urls": dict.fromkeys(("self", "cancel"), task_url(record.task_id, root)),
    }


def _queue_view(place: QueuePlace) -> dict[str, Any]:
    rate = place.drain_rate_per_s
    return {"position": place.position, "eta_s": round((place.position + 1) / rate, 3) if rate > 0 else None}
