"""The task stores that are held to the contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from store_worlds import FakeWorld, RedisWorld, StoreWorld
from support.redis_keys import undocumented

from inference.task_store import TaskStore


@pytest.fixture(params=["redis", "fake"])
def world(request: pytest.FixtureRequest, redis_client: redis.Redis, key_prefix: str) -> StoreWorld:
    return RedisWorld(redis_client, key_prefix) if request.param == "redis" else FakeWorld(key_prefix)


@pytest.fixture
def store(world: StoreWorld) -> TaskStore:
    return world.store


@pytest.fixture(autouse=True)
def _keys_are_documented(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check that every key that a test leaves behind has a row in docs/redis-keys.md."""
    if not {"redis_client", "key_prefix"} <= set(request.fixturenames):
        yield
        return
    client, prefix = request.getfixturevalue("redis_client"), request.getfixturevalue("key_prefix")
    yield
    assert undocumented(client, prefix, f"{prefix}:*") == []
