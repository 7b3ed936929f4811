"""The task store that is held to the contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from store_worlds import StoreWorld
from support.redis_keys import undocumented

from inference.task_store import TaskStore


@pytest.fixture
def world(redis_client: redis.Redis, key_prefix: str) -> StoreWorld:
    return StoreWorld(redis_client, key_prefix)


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
