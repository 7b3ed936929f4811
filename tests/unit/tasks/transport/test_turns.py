"""Owners take turns: neither many waiting messages of one owner nor large ones hold up another."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import redis
from claiming_rig import Reader, send
from kombu import Connection
from support.samples import MODEL, a_request, an_item

from inference.broker.redis import RedisBroker, wake_up_key
from inference.domain import QueueMessage
from inference.lifecycle.enqueue import accept
from inference.task_store.redis_store import RedisTaskStore, StorePolicy


class Desk:
    """Puts messages of owners on a queue, and takes them as a worker does."""

    def __init__(self, client: redis.Redis, queue: str, connect: Callable[..., Connection], **options: Any) -> None:
        self.broker = RedisBroker(client, shares_store=False)
        self.queue = queue
        self.reader = Reader(connect(**options), queue, prefetch=10_000)

    def put(self, owner: str, count: int = 1, *, items: int = 1, priority: int = 0) -> None:
        for _ in range(count):
            message = QueueMessage(MODEL, tuple(an_item(f"{owner or 'nobody'}.{uuid.uuid4().hex}") for _ in range(items)))
            self.broker.publish(self.queue, message, priority, owner=owner)

    def take(self, count: int) -> list[str]:
        """The owners of the next messages."""
        return [body[1]["items"][0]["task_id"].partition(".")[0] for body in self.reader.read(count)]


@pytest.fixture
def desk(redis_client: redis.Redis, queue: str, connect: Callable[..., Connection]) -> Desk:
    return Desk(redis_client, queue, connect, max_claim=4)


def test_one_message_does_not_wait_for_many_of_another_owner(desk: Desk) -> None:
    desk.put("flood", 200)
    desk.put("lab")
    assert "lab" in desk.take(4)


def test_owners_with_many_messages_take_turns(desk: Desk) -> None:
    desk.put("flood", 100)
    desk.put("lab", 10)
    desk.put("shop", 10)
    assert Counter(desk.take(31))["flood"] in {10, 11}
    assert set(desk.take(20)) == {"flood"}


def test_each_owner_keeps_its_order(desk: Desk) -> None:
    ids = []
    for owner in ("lab", "shop", "lab", "shop", "lab"):
        ids.append(f"{owner}.{len(ids)}")
        desk.broker.publish(desk.queue, QueueMessage(MODEL, (an_item(ids[-1]),)), owner=owner)
    taken = [body[1]["items"][0]["task_id"] for body in desk.reader.read(5)]
    assert [one for one in taken if one.startswith("lab")] == ids[::2]
    assert [one for one in taken if one.startswith("shop")] == ids[1::2]


def test_turns_count_items(desk: Desk) -> None:
    """A message of a batch counts as much as so many single ones."""
    desk.put("batches", 10, items=8)
    desk.put("lab", 40)
    taken = desk.take(22)
    assert 2 <= Counter(taken)["batches"] <= 3
    assert Counter(taken)["lab"] >= 16


def test_priorities_come_before_turns(desk: Desk) -> None:
    desk.put("flood", 8)
    desk.put("lab", priority=9)
    desk.put("flood", priority=9)
    assert sorted(desk.take(2)) == ["flood", "lab"]
    assert desk.take(8) == ["flood"] * 8


@pytest.mark.parametrize("seed", range(4))
def test_nobody_is_overtaken_again_and_again(desk: Desk, seed: int) -> None:
    """Between two messages of an owner that waits, each other owner has at most two turns more than it has itself."""
    chance = random.Random(seed)  # noqa: S311 the same each time
    owners = ["a", "b", "c", "", "z"]
    desk.put("waiting", 40)
    taken: list[str] = []
    for _ in range(60):
        for owner in owners:
            if chance.random() < 0.7:
                desk.put(owner, chance.randint(1, 3))
        taken += desk.take(4)
    places = [place for place, owner in enumerate(taken) if owner == "waiting"][:40]
    assert len(places) == 40
    for first, second in pairwise(places):
        assert max(Counter(taken[first + 1 : second]).values(), default=0) <= 2


def test_messages_without_an_owner_have_turns_too(desk: Desk, connect: Callable[..., Connection]) -> None:
    desk.put("flood", 30)
    desk.put("", 3)
    assert Counter(desk.take(8))["nobody"] == 3
    desk.put("", 30)
    assert 3 <= Counter(desk.take(8))["nobody"] <= 5


def test_a_message_that_was_given_back_comes_again(desk: Desk, redis_client: redis.Redis) -> None:
    desk.put("lab", 2)
    desk.take(1)
    desk.reader.taken[0].requeue()
    assert desk.take(2) == ["lab", "lab"]
    assert desk.broker.get_depth(desk.queue) == 0
    assert [key for key in redis_client.keys(f"{desk.queue}*") if key != wake_up_key(desk.queue).encode()] == []


def test_the_lists_of_owners_are_counted_and_purged(desk: Desk) -> None:
    desk.put("flood", 5)
    desk.put("lab", 2, priority=5)
    desk.put("", 1)
    channel = desk.reader.connection.channel()
    assert desk.broker.get_depth(desk.queue) == channel._size(desk.queue) == 8
    assert desk.broker.get_owners(desk.queue) == {"", "flood", "lab"}
    assert channel._purge(desk.queue) == 8
    assert desk.broker.get_depth(desk.queue) == 0
    assert desk.broker.get_owners(desk.queue) == set()
    desk.put("lab")
    assert desk.take(1) == ["lab"]


def test_a_lost_list_does_not_stop_the_others(desk: Desk, redis_client: redis.Redis) -> None:
    desk.put("lost")
    desk.put("lab", 2)
    (key,) = redis_client.keys(f"{desk.queue}*lost")
    redis_client.delete(key)
    assert desk.take(2) == ["lab", "lab"]


def test_lost_turns_come_back_with_the_next_message(desk: Desk, redis_client: redis.Redis) -> None:
    desk.put("lab")
    (key,) = redis_client.keys(f"{desk.queue}*turns")
    redis_client.delete(key)
    desk.put("lab")
    assert desk.take(2) == ["lab", "lab"]


def test_the_task_store_puts_messages_there_too(desk: Desk, redis_client: redis.Redis, key_prefix: str) -> None:
    store = RedisTaskStore(redis_client, StorePolicy(key_prefix, has_turns=True))
    broker = RedisBroker(redis_client, shares_store=True)
    for owner in ("flood",) * 20 + ("lab",):
        accept(store, broker, a_request(f"{owner}.{uuid.uuid4().hex}", owner=owner, queue=desk.queue))
    assert "lab" in desk.take(3)
    assert len(desk.take(18)) == 18


def test_without_turns_all_messages_are_in_one_list(redis_client: redis.Redis, queue: str) -> None:
    """kombu's own transport finds them like this."""
    broker = RedisBroker(redis_client, shares_store=False, has_turns=False)
    broker.publish(queue, QueueMessage(MODEL, (an_item(),)), owner="lab")
    assert redis_client.llen(f"{queue}\x06\x169") == broker.get_depth(queue) == 1


def test_without_turns_messages_that_are_left_in_lists_of_owners_count_as_lost(desk: Desk, redis_client: redis.Redis) -> None:
    """No worker finds them there: the relay queues their tasks again once the queue is empty."""
    desk.put("lab", 2)
    desk.put("")
    stock = RedisBroker(redis_client, shares_store=False, has_turns=False)
    assert stock.get_depth(desk.queue) == 1
    assert set(desk.take(3)) == {"lab", "nobody"}, "workers that know turns still find them"


def test_other_clients_are_heard_while_owners_wait(desk: Desk, connect: Callable[..., Connection]) -> None:
    desk.put("flood", 50)
    send(connect("redis"), desk.queue, [None, {"items": [{"task_id": "stock.1"}]}])
    assert "stock" in desk.take(4)


def test_a_worker_holds_less_while_owners_share_a_queue(
    redis_client: redis.Redis, queue: str, connect: Callable[..., Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task waits behind all that the worker holds, of whatever owner."""
    desk = Desk(redis_client, queue, connect, max_claim=2)
    desk.reader.consumer.qos(prefetch_count=8)
    desk.put("flood", 30)
    desk.put("lab", 1)
    assert "lab" in desk.take(4)
    first = list(desk.reader.taken)
    assert desk.reader.reads_nothing()
    for message in first[:2]:
        message.ack()
    assert desk.take(2) == ["flood"] * 2  # the other owner may come back soon
    assert desk.reader.reads_nothing()
    monkeypatch.setattr("tasks.transport.claiming._SHARED_FOR_S", 0.0)
    desk.reader.connection.default_channel.qos._shared_until = 0.0
    assert desk.take(4) == ["flood"] * 4
    assert desk.reader.reads_nothing()
