"""Flower's page of queues counts the messages of owners too."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import redis
import redis.asyncio
from flower.utils.broker import RedisBase  # type: ignore[import-untyped]
from support.samples import a_message, a_request

from inference.broker.redis import RedisBroker
from tasks.flower.queues import count_messages_of_owners


@pytest.fixture
def _ours() -> Iterator[None]:
    original = RedisBase.queues
    count_messages_of_owners()
    yield
    RedisBase.queues = original


@pytest.mark.usefixtures("_ours")
def test_messages_of_owners_and_of_nobody_are_counted(redis_client: redis.Redis, redis_url: str, key_prefix: str) -> None:
    full, empty = f"predict.{key_prefix}", f"predict.{key_prefix}.other"
    broker = RedisBroker(redis_client, shares_store=False)
    for owner, priority in (("lab", 0), ("lab", 0), ("shop", 9), ("", 0), ("", 5)):
        broker.publish(full, a_message(a_request()), priority, owner=owner)

    async def count() -> list[dict[str, object]]:
        flower = RedisBase("redis://127.0.0.1/0")
        flower.redis = redis.asyncio.Redis.from_url(redis_url)
        found: list[dict[str, object]] = await flower.queues([full, empty])
        return found

    assert asyncio.run(count()) == [{"name": full, "messages": 5}, {"name": empty, "messages": 0}]
