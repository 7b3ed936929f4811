"""Tasks that are taken out of messages which wait on Redis."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
import redis
from support.samples import MODEL, an_item

from inference.broker.redis import RedisBroker
from inference.domain import QueueMessage


@pytest.fixture
def queue(key_prefix: str) -> str:
    return f"predict.{key_prefix}"


@pytest.fixture
def broker(redis_client: redis.Redis) -> RedisBroker:
    return RedisBroker(redis_client, shares_store=True)


def a_message(*task_ids: str) -> QueueMessage:
    return QueueMessage(MODEL, tuple(map(an_item, task_ids)))


def waiting(client: redis.Redis, queue: str) -> list[dict[str, Any]]:
    """Messages by list, each list with its oldest first."""
    lists = sorted(key for key in client.scan_iter(f"{queue}*") if client.type(key) == b"list" and not key.endswith(b"bell"))
    payloads: list[Any] = [payload for key in lists for payload in reversed(client.lrange(key, 0, -1))]  # type: ignore[arg-type]
    return [orjson.loads(payload) for payload in payloads]


def ids_of(document: dict[str, Any]) -> list[str]:
    return [item["task_id"] for item in orjson.loads(base64.b64decode(document["body"]))[1]["items"]]


@pytest.mark.parametrize("owner", ["", "ada"])
def test_they_leave_their_messages_and_the_others_keep_their_places(
    redis_client: redis.Redis, broker: RedisBroker, queue: str, owner: str
) -> None:
    for ids in (["first"], ["a", "gone-1", "b"], ["gone-2"], ["last"]):
        broker.publish(queue, a_message(*ids), owner=owner)
    broker.forget(queue, ["gone-1", "gone-2", "unknown"])
    documents = waiting(redis_client, queue)
    assert [ids_of(document) for document in documents] == [["first"], ["a", "b"], ["last"]]
    assert [document["headers"]["items"] for document in documents] == [1, 2, 1]
    assert b"gone" not in orjson.dumps(documents)


def test_no_message_is_passed_over_among_many(redis_client: redis.Redis, broker: RedisBroker, queue: str) -> None:
    gone = [f"gone-{number}" for number in range(600)]
    for task_id in gone:
        broker.publish(queue, a_message(task_id))
    broker.publish(queue, a_message("other"))
    broker.forget(queue, gone)
    assert [ids_of(document) for document in waiting(redis_client, queue)] == [["other"]]


def test_what_is_left_of_a_message_keeps_its_properties(redis_client: redis.Redis, broker: RedisBroker, queue: str) -> None:
    broker.publish(queue, a_message("gone", "other"), 7, is_redelivered=True)
    (before,) = waiting(redis_client, queue)
    broker.forget(queue, ["gone"])
    (after,) = waiting(redis_client, queue)
    for changing in ("correlation_id", "delivery_tag"):
        assert before["properties"].pop(changing) != after["properties"].pop(changing)
    assert after["properties"] == before["properties"]
    assert after["properties"]["delivery_info"]["redelivered"] is True


def test_messages_of_other_clients_stay(redis_client: redis.Redis, broker: RedisBroker, queue: str) -> None:
    body = base64.b64encode(orjson.dumps([[], {"items": [{"object": "cat.jpg", "task_id": "gone"}]}, {}])).decode()
    messages = [orjson.dumps({"body": body, "headers": {"id": "gone"}}), b"gone, and no message at all", b"[]"]
    redis_client.lpush(queue, *messages)
    broker.forget(queue, ["gone"])
    assert redis_client.lrange(queue, 0, -1) == messages[::-1]
