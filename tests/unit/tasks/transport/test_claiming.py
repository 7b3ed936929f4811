"""The claiming transport is kombu's Redis transport in all but how a message is taken."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from claiming_rig import Reader, send, unacked
from kombu import Connection
from support.samples import MODEL, a_message, a_request, an_item, as_sent

from inference.broker.redis import RedisBroker, wake_up_key
from inference.domain import QueueMessage


def test_messages_come_in_order_and_are_noted_until_they_are_acknowledged(
    connect: Callable[..., Connection], queue: str, redis_client: redis.Redis, key_prefix: str
) -> None:
    send(connect(), queue, *range(5))
    reader = Reader(connect(), queue)
    assert reader.read(5) == [0, 1, 2, 3, 4]
    tags = {message.delivery_tag.encode() for message in reader.taken}
    assert unacked(redis_client, key_prefix) == (tags, tags)
    for message in reader.taken[:4]:
        message.ack()
    last = {reader.taken[4].delivery_tag.encode()}
    assert unacked(redis_client, key_prefix) == (last, last)


class TestWhileSomethingIsLeft:
    @pytest.fixture
    def reader(self, connect: Callable[..., Connection], queue: str) -> Reader:
        """Has claimed the first of three."""
        send(connect(), queue, *range(3))
        reader = Reader(connect(max_claim=1), queue)
        assert reader.read(1) == [0]
        return reader

    def test_a_server_that_has_forgotten_the_script_is_told_it_again(self, reader: Reader, redis_client: redis.Redis) -> None:
        redis_client.script_flush()
        assert reader.read(2) == [1, 2]

    def test_a_token_is_left_for_another_worker(
        self, reader: Reader, connect: Callable[..., Connection], queue: str, redis_client: redis.Redis
    ) -> None:
        assert redis_client.llen(wake_up_key(queue)) == 1
        assert Reader(connect(max_claim=1), queue).read(1) == [1]
        assert redis_client.llen(wake_up_key(queue)) == 1
        assert reader.read(1) == [2]
        assert redis_client.llen(wake_up_key(queue)) == 0

    def test_a_channel_that_is_being_closed_claims_nothing(
        self, reader: Reader, connect: Callable[..., Connection], queue: str, redis_client: redis.Redis
    ) -> None:
        reader.consumer.channel._brpop_start()
        reader.connection.release()
        assert reader.messages == []
        assert redis_client.llen(queue) == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), datetime(2026, 1, 31, tzinfo=UTC)])
def test_headers_that_strict_json_has_no_form_for_are_read_as_kombu_wrote_them(
    connect: Callable[..., Connection], queue: str, value: Any
) -> None:
    send(connect("redis"), queue, "odd", headers={"value": value})
    send(connect("redis"), queue, "usual")
    reader = Reader(connect(), queue)
    assert reader.read(2) == ["odd", "usual"]
    assert repr(reader.taken[0].headers["value"]) == repr(value)


def test_a_stock_producer_is_heard_and_ours_at_once(
    connect: Callable[..., Connection], queue: str, redis_client: redis.Redis
) -> None:
    reader = Reader(connect(), queue)
    assert reader.reads_nothing()
    send(connect("redis"), queue, "stock")
    assert reader.read(1) == ["stock"]
    message = a_message(a_request())
    RedisBroker(redis_client, shares_store=False).publish(queue, message)
    assert reader.read(1)[0][1] == as_sent(message)


def test_no_more_is_claimed_than_the_window_allows(
    connect: Callable[..., Connection], queue: str, redis_client: redis.Redis
) -> None:
    send(connect(), queue, *range(20))
    reader = Reader(connect(), queue, prefetch=6)
    assert reader.read(6) == [0, 1, 2, 3, 4, 5]
    assert reader.reads_nothing()
    assert redis_client.llen(queue) == 14
    for message in reader.taken[:2]:
        message.ack()
    assert reader.read(2) == [6, 7]


def test_the_window_counts_items(connect: Callable[..., Connection], queue: str, redis_client: redis.Redis) -> None:
    """A message of a batch carries many items."""
    send(connect(), queue, "large", "another", headers={"items": 32})
    send(connect(), queue, "small", "last")
    reader = Reader(connect(), queue, prefetch=33)
    assert reader.read(2) == ["large", "another"]  # the first leaves room for one, and what is taken is taken whole
    large, another = reader.taken
    assert reader.reads_nothing()
    another.ack()
    assert reader.read(1) == ["small"]
    assert reader.reads_nothing()
    assert redis_client.llen(queue) == 1
    large.reject(requeue=False)
    assert reader.read(1) == ["last"]


def test_one_claim_takes_a_batch_and_leaves_the_next_to_the_next_worker(connect: Callable[..., Connection], queue: str) -> None:
    send(connect(), queue, "first", "second", headers={"items": 4})
    readers = [Reader(connect(max_claim=4), queue, prefetch=100) for _ in range(2)]
    assert [reader.read(1) for reader in readers] == [["first"], ["second"]]


def test_our_messages_say_how_many_items_they_carry(
    connect: Callable[..., Connection], queue: str, redis_client: redis.Redis
) -> None:
    broker = RedisBroker(redis_client, shares_store=False)
    for count in (3, 1):
        broker.publish(queue, QueueMessage(MODEL, tuple(an_item() for _ in range(count))))
    reader = Reader(connect(), queue, prefetch=3)
    reader.read(1)
    assert reader.reads_nothing()
    reader.taken[0].ack()
    reader.read(1)


def test_one_claim_leaves_the_rest_to_the_next_worker(connect: Callable[..., Connection], queue: str) -> None:
    send(connect(), queue, *range(10))
    first = Reader(connect(max_claim=4), queue, prefetch=100)
    second = Reader(connect(max_claim=4), queue, prefetch=100)
    assert first.read(4) == [0, 1, 2, 3]
    assert second.read(4) == [4, 5, 6, 7]


def test_higher_priorities_come_first(connect: Callable[..., Connection], queue: str) -> None:
    connection = connect()
    for priority in (9, 3, 6, 0, 9, 0):
        send(connection, queue, priority, priority=priority)
    assert Reader(connect(), queue).read(6) == [0, 0, 3, 6, 9, 9]


def test_a_busy_queue_does_not_starve_another(connect: Callable[..., Connection], queue: str) -> None:
    connection = connect()
    send(connection, queue, *["busy"] * 50)
    send(connection, f"{queue}-2", "rare")
    reader = Reader(connect(max_claim=5), queue, f"{queue}-2", prefetch=20)
    assert "rare" in reader.read(20)
