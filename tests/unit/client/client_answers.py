"""Answers as the service gives them."""

from __future__ import annotations

from typing import Any

from support.scripted_server import Scripted

MODEL = {"name": "digits", "version": "1", "digest": "sha256:00"}
RESULT = {"class": 7, "label": "seven", "confidence_level": 0.9, "prediction": [0.1, 0.9]}
PREDICTION = Scripted(document={"response": RESULT, "task_id": "t1", "request_id": "t1", "model": MODEL})
NOT_JSON = Scripted(body=b"<html>Welcome to nginx!</html>", headers={"Content-Type": "text/html"})


def task_document(status: str, **members: Any) -> dict[str, Any]:
    ended = status == "succeeded"
    return {
        "task_id": "t1",
        "request_id": "t1",
        "status": status,
        "model": MODEL,
        "created_at": "2026-01-31T12:00:00.250Z",
        "started_at": None,
        "finished_at": "2026-01-31T12:00:01.000Z" if ended else None,
        "deadline_at": "2026-01-31T13:00:00.000Z",
        "result": RESULT if ended else None,
        "error": None,
        "priority": 0,
        "batch_id": None,
        "replay_of": None,
        "deliveries": [{"sink": "jsonl", "status": "pending"}],
        "queue": {"position": 3, "eta_s": None} if status == "queued" else None,
        "attempts": 0,
        "timings": {"store_ms": 1.5},
        "batch_size": None,
        "urls": {"self": "/tasks/t1", "cancel": "/tasks/t1"},
    } | members


def task(status: str, **members: Any) -> Scripted:
    return Scripted(document=task_document(status, **members))


def item_document(status: str = "succeeded", **members: Any) -> dict[str, Any]:
    result = RESULT if status == "succeeded" else None
    return {"status": status, "task_id": "t1", "request_id": "t1", "model": MODEL, "result": result, "error": None} | members


def batch_document(*statuses: str) -> dict[str, Any]:
    counts = dict.fromkeys(("queued", "running", "succeeded", "failed", "canceled", "expired", "refused"), 0)
    for status in statuses:
        counts[status] += 1
    is_open = counts["queued"] + counts["running"]
    return {
        "batch_id": "b1",
        "status": "running" if is_open else "ended",
        "counts": counts,
        "items": [item_document(status) for status in statuses],
        "urls": {"self": "/batches/b1", "cancel": "/batches/b1"},
    }


def batch(*statuses: str) -> Scripted:
    return Scripted(document=batch_document(*statuses))
