"""The message that we put on the queue by ourselves is the one that Celery would put there, and kombu reads it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu.pools
import pytest
import redis
from celery import Celery
from kombu import Connection, Queue
from kombu.simple import SimpleQueue
from support.redis_server import client_of_nobody
from support.samples import MODEL, a_message, a_request, an_item, as_sent
from support.waiting import TIMEOUT_S

from inference.broker import envelope
from inference.broker.redis import RedisBroker
from inference.domain import PREDICT_TASK, QueueMessage
from inference.errors import ServiceUnavailable

#: Parts that differ between messages: ids, the sender, the address of a reply; and a text for people.
_OWN_HEADERS = {"origin", "kwargsrepr"}
_OWN_PROPERTIES = {"delivery_tag", "reply_to"}


@pytest.fixture
def kombu_url(redis_url: str) -> str:
    return redis_url.replace("unix://", "redis+socket://").replace("?db=", "?virtual_host=")


@pytest.fixture
def celery(kombu_url: str) -> Iterator[Celery]:
    """Celery as `celeryconfig.py` sets it up, as far as it concerns sending."""
    app = Celery("test", broker=kombu_url, set_as_current=False)
    app.conf.update(task_serializer="json", task_ignore_result=True, timezone="UTC")
    yield app
    app.close()
    kombu.pools.reset()


@pytest.fixture
def broker(redis_client: redis.Redis) -> RedisBroker:
    return RedisBroker(redis_client, shares_store=True)


@pytest.fixture
def queue(key_prefix: str) -> str:
    return f"predict.{key_prefix}"


def sent_by_celery(celery: Celery, client: redis.Redis, queue: str, message: QueueMessage, **options: Any) -> dict[str, Any]:
    celery.send_task(
        PREDICT_TASK,
        kwargs=as_sent(message),
        task_id=envelope.message_id(message),
        queue=Queue(queue, exchange="", routing_key=queue),
        ignore_result=True,
        **options,
    )
    return last_of(client, _list_key(queue, options.get("priority", 0)))


def _list_key(queue: str, native: int) -> str:
    """Key of the list of kombu's priority, where 0 goes first."""
    step = native // 3 * 3
    return f"{queue}\x06\x16{step}" if step else queue


def last_of(client: redis.Redis, queue: str) -> dict[str, Any]:
    payload: Any = client.lindex(queue, 0)
    envelope: dict[str, Any] = json.loads(payload)
    return envelope


def body_of(envelope: dict[str, Any]) -> Any:
    assert envelope["properties"]["body_encoding"] == "base64"
    return json.loads(base64.b64decode(envelope["body"]))


def test_it_is_what_celery_sends(celery: Celery, broker: RedisBroker, redis_client: redis.Redis, queue: str) -> None:
    message = QueueMessage(MODEL, (an_item(), an_item()))
    expected = sent_by_celery(celery, redis_client, queue, message, priority=9)
    broker.publish(queue, message)
    ours = last_of(redis_client, _list_key(queue, 9))

    assert body_of(ours) == body_of(expected) == [[], as_sent(message), body_of(expected)[2]]
    assert (ours["headers"].pop("items"), ours["headers"].pop("format")) == (2, 1)
    assert ours.keys() == expected.keys()
    for part, own in (("headers", _OWN_HEADERS), ("properties", _OWN_PROPERTIES)):
        assert ours[part].keys() == expected[part].keys()
        assert {k: v for k, v in ours[part].items() if k not in own} == {k: v for k, v in expected[part].items() if k not in own}
    assert ours["content-type"] == expected["content-type"]
    assert ours["content-encoding"] == expected["content-encoding"]


def test_a_message_of_several_tasks_has_an_id_of_its_own() -> None:
    """So that to revoke one of them is not to revoke all; the same when the message is made again."""
    one, several = QueueMessage(MODEL, (an_item("a"),)), QueueMessage(MODEL, (an_item("a"), an_item("b")))
    assert envelope.message_id(one) == "a"
    assert envelope.message_id(several) not in {"a", "b"}
    assert envelope.message_id(several) == envelope.message_id(QueueMessage(MODEL, several.items))


def test_each_message_has_a_tag_of_its_own(broker: RedisBroker, queue: str) -> None:
    message = a_message(a_request())
    first, second = broker.prepare(queue, message), broker.prepare(queue, message)
    assert first is not None
    assert second is not None
    tags = {json.loads(enqueue.payload)["properties"]["delivery_tag"] for enqueue in (first, second)}
    assert len(tags) == 2


def test_the_record_store_pushes_the_same(broker: RedisBroker, redis_client: redis.Redis, queue: str) -> None:
    message = a_message(a_request())
    enqueue = broker.prepare(queue, message)
    assert enqueue is not None
    assert enqueue.list_key == _list_key(queue, 9)
    broker.publish(queue, message)
    prepared, published = json.loads(enqueue.payload), last_of(redis_client, enqueue.list_key)
    assert prepared["properties"].pop("delivery_tag") != published["properties"].pop("delivery_tag")
    assert prepared == published


def test_a_message_in_place_of_a_lost_one_is_marked_as_kombu_marks_it(kombu_url: str, broker: RedisBroker, queue: str) -> None:
    ids = ["first", "again"]
    for task_id in ids:
        broker.publish(queue, QueueMessage(MODEL, (an_item(task_id),)), is_redelivered=task_id == "again")
    with Connection(kombu_url) as connection, SimpleQueue(connection, Queue(queue, exchange="", routing_key=queue)) as consumer:
        found = [consumer.get(timeout=TIMEOUT_S) for _ in ids]
        for message in found:
            message.ack()
    assert [message.headers["id"] for message in found] == ids
    assert [bool(message.delivery_info.get("redelivered")) for message in found] == [False, True]


def test_a_broker_on_another_server_than_the_task_store_prepares_nothing(redis_client: redis.Redis, queue: str) -> None:
    assert RedisBroker(redis_client, shares_store=False).prepare(queue, a_message(a_request())) is None


def test_kombu_reads_it_in_order_and_acknowledges_it(
    kombu_url: str, broker: RedisBroker, redis_client: redis.Redis, queue: str
) -> None:
    messages = [QueueMessage(MODEL, (an_item(), an_item("größer"))) for _ in range(3)]
    for message in messages:
        broker.publish(queue, message)
    with (
        Connection(kombu_url) as connection,
        SimpleQueue(connection, Queue(queue, exchange="", routing_key=queue), no_ack=False) as consumer,
    ):
        for message in messages:
            received = consumer.get(timeout=TIMEOUT_S)
            args, kwargs, embed = received.payload
            assert (args, QueueMessage.from_kwargs(kwargs)) == ([], message)
            assert embed == {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
            assert received.headers["task"] == PREDICT_TASK
            assert received.headers["id"] == received.properties["correlation_id"] == envelope.message_id(message)
            received.ack()
    assert broker.get_depth(queue) == redis_client.hlen("unacked") == 0


@pytest.mark.parametrize("priority", range(10))
def test_a_priority_is_what_celery_makes_of_it(
    celery: Celery, broker: RedisBroker, redis_client: redis.Redis, queue: str, priority: int
) -> None:
    message = a_message(a_request())
    expected = sent_by_celery(celery, redis_client, queue, message, priority=9 - priority)
    broker.publish(queue, message, priority)
    ours = last_of(redis_client, _list_key(queue, 9 - priority))
    assert ours["properties"]["delivery_tag"] != expected["properties"]["delivery_tag"]
    assert ours["properties"]["priority"] == expected["properties"]["priority"] == 9 - priority


def test_the_depth_counts_every_priority(celery: Celery, broker: RedisBroker, redis_client: redis.Redis, queue: str) -> None:
    assert broker.get_depth(queue) == 0
    broker.publish(queue, a_message(a_request()))
    for priority in range(10):
        sent_by_celery(celery, redis_client, queue, a_message(a_request()), priority=priority)
    assert broker.get_depth(queue) == 11


def test_messages_of_another_queue_do_not_count(broker: RedisBroker, queue: str) -> None:
    broker.publish(f"{queue}.other", a_message(a_request()))
    assert broker.get_depth(queue) == 0


def test_a_broker_that_is_down_is_unavailable(tmp_path: Path) -> None:
    with client_of_nobody(tmp_path) as client:
        broker = RedisBroker(client, shares_store=False)
        with pytest.raises(ServiceUnavailable):
            broker.publish("queue", a_message(a_request()))
        with pytest.raises(ServiceUnavailable):
            broker.get_depth("queue")
