"""The task store that is held to the contract."""

from __future__ import annotations

import pytest
import redis
from store_worlds import StoreWorld

from inference.task_store import TaskStore


@pytest.fixture
def world(redis_client: redis.Redis, key_prefix: str) -> StoreWorld:
    return StoreWorld(redis_client, key_prefix)


@pytest.fixture
def store(world: StoreWorld) -> TaskStore:
    return world.store
