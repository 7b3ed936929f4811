"""The task stores that are held to the contract."""

from __future__ import annotations

import pytest
import redis
from store_worlds import FakeWorld, RedisWorld, StoreWorld

from inference.task_store import TaskStore


@pytest.fixture(params=["redis", "fake"])
def world(request: pytest.FixtureRequest, redis_client: redis.Redis, key_prefix: str) -> StoreWorld:
    return RedisWorld(redis_client, key_prefix) if request.param == "redis" else FakeWorld(key_prefix)


@pytest.fixture
def store(world: StoreWorld) -> TaskStore:
    return world.store
