"""Figures of a queue, read from the answer of the script queue_stats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from inference.domain import ModelRef
from inference.task_store.protocol import BatchFill, QueueLoad, QueuePlace, QueueStats, RateChange
from inference.task_store.records import model_from


def stats_from(answer: Sequence[Any]) -> QueueStats:
    waiting, running, oldest_ms, ended, busy_ms, *_ = answer
    return QueueStats(waiting, oldest_ms / 1000, _per_s(ended, busy_ms) if waiting or running else 0.0)


def load_from(answer: Sequence[Any], *, has_turns: bool) -> QueueLoad:
    waiting, running, _, ended, busy_ms, commits, urgent, stalled_ms, model, returning, change, _, shares = answer
    return QueueLoad(
        waiting,
        running,
        ended=float(ended),
        busy_s=float(busy_ms) / 1000,
        batches=float(commits),
        urgent_per_s=float(urgent),
        stalled_s=stalled_ms / 1000,
        model=model_from(model) if model else None,
        returning=float(returning),
        change=_change_from(change) if change else None,
        shares={owner.decode(): int(count) for owner, count in zip(shares[::2], shares[1::2], strict=True)} if has_turns else {},
    )


def places_from(answer: Sequence[Any], task_ids: Sequence[str]) -> dict[str, QueuePlace]:
    """Return the places of the waiting tasks among `task_ids`, the ids that the script got."""
    _, _, _, ended, busy_ms, *_, positions, _ = answer
    rate_per_s = _per_s(ended, busy_ms)
    found = zip(task_ids, positions, strict=True)
    return {task_id: QueuePlace(position, rate_per_s) for task_id, position in found if position >= 0}


#: Minutes that the script commit keeps in pace:QUEUE, and their fields.
FILL_MINUTES = 15
FILL_FIELDS = tuple(f"minute:{slot}" for slot in range(FILL_MINUTES))


def fill_from(fields: Sequence[bytes | None], server_time_s: int) -> tuple[BatchFill, ...]:
    """Return the batches of the last minutes in which there were any, oldest first; `fields` are the values of FILL_FIELDS."""
    minute_now = server_time_s // 60
    minutes = sorted(tuple(map(int, field.split())) for field in fields if field is not None)
    return tuple(
        BatchFill(minute_now - minute, images, batches)
        for minute, images, batches in minutes
        if 0 <= minute_now - minute < FILL_MINUTES
    )


def change_field(change: RateChange) -> bytes:
    return orjson.dumps([change.share, change.model.name, change.model.version, change.model.digest])


def _change_from(field: bytes) -> RateChange:
    share, *model = orjson.loads(field)
    return RateChange(ModelRef(*model), share)


def _per_s(count: bytes, ms: bytes) -> float:
    """Return a rate per second; 0 if nothing is known."""
    return float(count) * 1000 / float(ms) if float(ms) else 0.0
