"""Steps of many tasks at once, for tests of the store on Redis."""

from __future__ import annotations

from typing import Any

from support.samples import a_request, a_success

from inference.task_store import Commit, LeaseState
from inference.task_store.redis_store import RedisTaskStore


def accept_many(store: RedisTaskStore, count: int, **changes: Any) -> list[str]:
    requests = [a_request(**changes) for _ in range(count)]
    return [store.accept(request, enqueue=None, max_queue_depth=0).task_id for request in requests]


def start(store: RedisTaskStore, holder: str, task_ids: list[str]) -> list[Commit]:
    """Lease and start all of `task_ids` that are free; return their commits."""
    leases = store.lease(holder, task_ids).leases
    ours = [task_id for task_id, lease in zip(task_ids, leases, strict=True) if lease.state is LeaseState.LEASED]
    attempts = store.start(holder, ours)
    return [Commit(task_id, attempt, a_success()) for task_id, attempt in zip(ours, attempts, strict=True) if attempt is not None]
