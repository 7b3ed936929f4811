"""Task object: a task as clients and receivers of webhooks see it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from inference.domain import Outcome, PredictionResult, TaskRecord
from inference.errors import InferenceError
from inference.webhook import Webhook, WebhookDelivery


def task_object(record: TaskRecord, *, with_vector: bool) -> dict[str, Any]:
    """Return the task object, without the members that only an answer of HTTP has (`queue`, `urls`).

    Args:
        with_vector: whether the result has the member `prediction`.
    """
    outcome = record.outcome
    error = InferenceError.from_dict(outcome.error) if outcome and outcome.error else None
    return {
        "task_id": record.task_id,
        "request_id": record.request_id,
        **({"owner": record.owner} if record.owner else {}),
        "status": record.status,
        "model": record.ran_on.to_dict(),
        "created_at": time_text(record.created_at_ms),
        "started_at": time_text(record.started_at_ms),
        "finished_at": time_text(record.finished_at_ms),
        "deadline_at": time_text(record.deadline_at_ms),
        "result": result_object(outcome.result, with_vector=with_vector) if outcome and outcome.result else None,
        "error": error.to_problem() if error else None,
        "priority": record.priority,
        "batch_id": record.batch_id or None,
        "replay_of": record.replay_of or None,
        "deliveries": [_delivery(record, sink, status) for sink, status in record.deliveries.items()],
        **({"webhook": _webhook(record.webhook, record.webhook_delivery)} if record.webhook else {}),
        "attempts": record.attempts,
        "timings": timings_object(record.store_ms, outcome, record.finished_at_ms),
        **({} if record.is_image_stored else {"image_stored": False}),
        "batch_size": outcome.batch_size if outcome else None,
    }


def result_object(result: PredictionResult, *, with_vector: bool = True) -> dict[str, Any]:
    """Return the result object of a task that has succeeded."""
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


def timings_object(store_ms: float, outcome: Outcome | None, finished_at_ms: int) -> Mapping[str, float]:
    """Return milliseconds by step."""
    timings: dict[str, float] = {"store_ms": store_ms}
    if outcome is not None:
        timings |= outcome.timings
        if outcome.predicted_at_ms:
            timings["commit_ms"] = max(0, finished_at_ms - outcome.predicted_at_ms)
    return {name: round(value, 3) for name, value in timings.items()}


def time_text(at_ms: int) -> str | None:
    """Return a time in UTC as in RFC 3339; None for 0, which means not yet."""
    if not at_ms:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _delivery(record: TaskRecord, sink: str, status: str) -> dict[str, str]:
    # The text after the colon is the sink server's and may contain its addresses: only `server.py dead-letters list` shows it.
    reason = record.refusals.get(sink, "").partition(": ")[0]
    return {"sink": sink, "status": status} | ({"reason": reason} if reason else {})


def _webhook(webhook: Webhook, delivery: WebhookDelivery | None) -> dict[str, Any]:
    chosen = {"url": webhook.url, "events": webhook.events}
    if delivery is None:
        return chosen | {"status": None, "attempts": 0, "last_attempts": [], "next_attempt_at": None}
    return chosen | {
        "status": delivery.state,
        "attempts": delivery.attempts,
        "last_attempts": [
            {"at": time_text(one.at_ms), "duration_ms": one.duration_ms, "status": one.status, "error": one.error}
            for one in delivery.last_attempts
        ],
        "next_attempt_at": time_text(delivery.next_attempt_at_ms),
    }
