"""The counts of a queue heal: records may be evicted, or ended by a version that does not know every set."""

from __future__ import annotations

import pytest
import redis
from support.fakes import FakeBroker, FakeObjectStore
from support.samples import QUEUE, a_request

from inference.domain import TaskStatus
from inference.relay.sweeper import Sweeper, SweepPolicy
from inference.task_store.protocol import Order
from inference.task_store.redis_store import RedisTaskStore, StorePolicy

#: More than one pass looks at.
LEAKED = 150


@pytest.fixture
def store(redis_client: redis.Redis, key_prefix: str) -> RedisTaskStore:
    return RedisTaskStore(redis_client, StorePolicy(key_prefix))


def accept(store: RedisTaskStore, *, priority: int = 0, owner: str = "") -> str:
    return store.accept(a_request(priority=priority, owner=owner), enqueue=None, max_queue_depth=0).task_id


def start(store: RedisTaskStore, task_id: str) -> str:
    store.lease("worker", [task_id])
    assert store.start("worker", [task_id]) == [1]
    return task_id


def members(client: redis.Redis, key_prefix: str) -> dict[str, set[str]]:
    found = {"running": client.smembers(f"{key_prefix}:running:{QUEUE}")}
    found |= {kind: client.zrange(f"{key_prefix}:{kind}:{QUEUE}", 0, -1) for kind in ("waiting", "urgent")}
    return {kind: {member.decode() for member in ids} for kind, ids in found.items()}


def test_tasks_that_are_gone_are_counted_no_more(store: RedisTaskStore, redis_client: redis.Redis, key_prefix: str) -> None:
    running, waiting, urgent = start(store, accept(store)), accept(store), accept(store, priority=9)
    canceled = accept(store)
    store.cancel(canceled)
    ghosts = [canceled, waiting, *(f"{number:032x}" for number in range(LEAKED))]
    redis_client.sadd(f"{key_prefix}:running:{QUEUE}", *ghosts)
    evicted = [start(store, accept(store)), accept(store), accept(store, priority=9)]
    redis_client.delete(*(f"{key_prefix}:task:{task_id}" for task_id in evicted))
    for kind in ("waiting", "urgent"):
        redis_client.zadd(f"{key_prefix}:{kind}:{QUEUE}", {canceled: 1, running: 2})
    sweeper = Sweeper(store, FakeBroker(), FakeObjectStore(), holder="sweeper", queues=[QUEUE], policy=SweepPolicy())
    expected = {"running": {running}, "waiting": {waiting, urgent}, "urgent": {urgent}}
    for _ in range(3):
        sweeper.sweep_once()
    assert members(redis_client, key_prefix) == expected
    assert store.forget_gone(QUEUE, limit=100) == 0


def test_a_pass_looks_at_a_bounded_number(store: RedisTaskStore, redis_client: redis.Redis, key_prefix: str) -> None:
    redis_client.sadd(f"{key_prefix}:running:{QUEUE}", *range(LEAKED))
    assert [store.forget_gone(QUEUE, limit=100) for _ in range(3)] == [100, 50, 0]


def test_numbers_of_owners_without_waiting_tasks_are_forgotten_but_for_the_highest(
    store: RedisTaskStore, redis_client: redis.Redis, key_prefix: str
) -> None:
    """Else one field for each owner that ever sent a task would stay."""
    for number in range(30):
        start(store, accept(store, owner=f"owner-{number}"))
    waiting = accept(store, owner="owner-3")
    assert 0 < redis_client.pttl(f"{key_prefix}:started:{QUEUE}") <= 86_400_000
    for _ in range(3):
        store.forget_gone(QUEUE, limit=100)
    left = store.get_started_watermarks(QUEUE)
    assert set(left) == {Order(0, "owner-3"), Order(0, "owner-29")}, "one still waits, and one is the highest of all"
    assert store.get(waiting).status is TaskStatus.QUEUED
