"""The claiming transport is kombu's Redis transport in all but how a message is taken."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection, Consumer, Exchange, Message, Queue
from kombu.asynchronous import Hub, set_event_loop
from support.samples import MODEL, a_message, a_request, an_item, as_sent
from support.waiting import TIMEOUT_S, until

from inference.broker.redis import RedisBroker, wake_up_key
from inference.domain import QueueMessage
from tasks.transport.claiming import ClaimingTransport

#: Seconds in which nothing more comes, for a test that says so.
QUIET_S = 0.6


@pytest.fixture
def url(redis_url: str) -> str:
    return redis_url.replace("unix://", "redis+socket://").replace("?db=", "?virtual_host=")


@pytest.fixture
def queue(key_prefix: str) -> str:
    return f"predict.{key_prefix}"


@pytest.fixture
def connect(url: str, key_prefix: str) -> Iterator[Callable[..., Connection]]:
    """Connections with an unacked hash of this test's own."""
    opened: list[Connection] = []

    def open_one(transport: Any = ClaimingTransport, **options: Any) -> Connection:
        own = {"unacked_key": f"{key_prefix}-unacked", "unacked_index_key": f"{key_prefix}-index"}
        opened.append(Connection(url, transport=transport, transport_options=own | options))
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.release()


class Reader:
    """A consumer that takes what the transport gives it."""

    def __init__(self, connection: Connection, *queues: str, prefetch: int = 10, no_ack: bool = False) -> None:
        self.connection = connection
        self.messages: list[Message] = []
        #: what `read` gave last
        self.taken: list[Message] = []
        channel = connection.default_channel
        self.consumer = Consumer(
            channel,
            [Queue(name, exchange="", routing_key=name) for name in queues],
            on_message=self.messages.append,
            no_ack=no_ack,
        )
        self.consumer.qos(prefetch_count=prefetch)
        self.consumer.consume()

    def read(self, count: int) -> list[Any]:
        """The bodies of the next `count`."""
        until(lambda: self._turn() or len(self.messages) >= count)
        self.taken = [self.messages.pop(0) for _ in range(count)]
        return [message.payload for message in self.taken]

    def reads_nothing(self) -> bool:
        until = time.monotonic() + QUIET_S
        while time.monotonic() < until:
            self._turn()
        return not self.messages

    def _turn(self) -> None:
        try:
            self.connection.drain_events(timeout=0.05)
        except TimeoutError:
            return


def send(connection: Connection, queue: str, *bodies: Any, **options: Any) -> None:
    with connection.Producer() as producer:
        for body in bodies:
            producer.publish(
                body, exchange="", routing_key=queue, declare=[Queue(queue, exchange="", routing_key=queue)], **options
            )


def unacked(client: redis.Redis, key_prefix: str) -> tuple[set[bytes], set[bytes]]:
    """Delivery tags in kombu's hash and in its index."""
    noted: Any = client.hkeys(f"{key_prefix}-unacked")
    indexed: Any = client.zrange(f"{key_prefix}-index", 0, -1)
    return set(noted), set(indexed)


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


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    set_event_loop(hub)
    yield hub
    set_event_loop(None)


class TestOnAMainLoop:
    @pytest.mark.usefixtures("hub")
    def test_the_window_opens_before_acknowledgements_are_sent(
        self, connect: Callable[..., Connection], queue: str, redis_client: redis.Redis, key_prefix: str
    ) -> None:
        send(connect(), queue, *range(3))
        reader = Reader(connect(max_claim=2), queue, prefetch=2)
        reader.read(2)
        first, second = reader.taken
        first.ack()
        assert len(unacked(redis_client, key_prefix)[0]) == 2
        assert reader.read(1) == [2]
        held = {message.delivery_tag.encode() for message in (first, second, *reader.taken)}
        assert unacked(redis_client, key_prefix) == (held, held)

    def test_they_are_sent_soon(
        self, connect: Callable[..., Connection], queue: str, redis_client: redis.Redis, key_prefix: str, hub: Hub
    ) -> None:
        send(connect(), queue, *range(3))
        reader = Reader(connect(), queue)
        reader.read(3)
        for number, message in enumerate(reader.taken):
            message.ack()
            until(lambda left=2 - number: hub.fire_timers() and len(unacked(redis_client, key_prefix)[0]) == left)  # type: ignore[misc]
        assert unacked(redis_client, key_prefix) == (set(), set())

    @pytest.mark.usefixtures("hub")
    def test_they_go_before_the_rest_is_given_back(
        self, connect: Callable[..., Connection], queue: str, redis_client: redis.Redis
    ) -> None:
        send(connect(), queue, "ended", "left")
        reader = Reader(connect(), queue)
        reader.read(2)
        reader.taken[0].ack()
        reader.connection.release()
        assert redis_client.llen(queue) == 1
        assert Reader(connect(), queue).read(1) == ["left"]

    @pytest.mark.usefixtures("hub")
    def test_where_the_connection_breaks_they_go_with_the_next(
        self, connect: Callable[..., Connection], queue: str, redis_client: redis.Redis, key_prefix: str
    ) -> None:
        send(connect(), queue, "ended")
        reader = Reader(connect(), queue)
        reader.read(1)
        reader.taken[0].ack()
        qos = reader.consumer.channel.qos
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(qos, "pipe_or_acquire", _broken)
            with pytest.raises(redis.ConnectionError):
                qos.flush_acknowledged()
        qos.restore_unacked_once()
        assert unacked(redis_client, key_prefix) == (set(), set())


def _broken(*_: Any) -> Any:
    raise redis.ConnectionError("the connection is lost")


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
    """Of which a message of a batch carries many."""
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


@pytest.mark.parametrize("transport", [ClaimingTransport, "redis"])
def test_what_is_rejected_or_left_comes_again(connect: Callable[..., Connection], queue: str, transport: Any) -> None:
    """Also to a worker with the stock transport: the format is kombu's."""
    send(connect(), queue, "rejected", "left", "acknowledged")
    reader = Reader(connect(), queue)
    reader.read(3)
    rejected, _, acknowledged = reader.taken
    acknowledged.ack()
    rejected.reject(requeue=True)
    reader.consumer.cancel()
    reader.connection.release()
    again = Reader(connect(transport), queue)
    assert sorted(again.read(2)) == ["left", "rejected"]
    assert all(message.headers["redelivered"] for message in again.taken)
    assert again.reads_nothing()


def test_a_message_whose_worker_died_comes_again_after_the_visibility_timeout(
    connect: Callable[..., Connection], queue: str
) -> None:
    send(connect(), queue, "orphan")
    reader = Reader(connect(), queue)
    reader.read(1)
    reader.connection.default_channel.qos.restore_at_shutdown = False  # as a kill leaves it
    reader.connection.release()
    again = Reader(connect(visibility_timeout=0.1, unacked_restore_throttle=1), queue)
    assert again.read(1) == ["orphan"]


def test_a_consumer_that_fails_gives_back_what_was_claimed_with_it(connect: Callable[..., Connection], queue: str) -> None:
    send(connect(), queue, *range(4))
    failing = Reader(connect(), queue)

    def fail(_: Message) -> None:
        raise RuntimeError("a handler failed")

    failing.consumer.on_message = fail
    with pytest.raises(RuntimeError):
        failing.read(1)
    again = Reader(connect(), queue)
    assert again.read(3) == [1, 2, 3]


@pytest.mark.parametrize(
    "junk",
    [
        "no JSON",
        "[]",
        "{}",
        "[1, 2]",
        '{"properties": 1}',
        '{"properties": {"delivery_tag": 1}}',
        '{"properties": {"delivery_tag": "t", "delivery_info": []}, "headers": [1]}',
        '{"properties": {"delivery_tag": "t", "delivery_info": {}, "body_encoding": "rot13"}, "body": "x"}',
        '{"properties": {"delivery_tag": "t", "delivery_info": {}, "body_encoding": "base64"}, "body": 7}',
        '{"properties": {"delivery_tag": "t", "delivery_info": {}}, "headers": {"x": {"__type__": "datetime", "__value__": 1}}}',
        "\ud800".encode("utf-8", "surrogatepass"),
    ],
)
def test_what_is_no_message_comes_unread_to_be_put_aside_and_the_next_ones_come(
    connect: Callable[..., Connection], queue: str, redis_client: redis.Redis, key_prefix: str, junk: str | bytes
) -> None:
    send(connect(), queue, "before")
    redis_client.lpush(queue, junk)
    send(connect(), queue, "after")
    reader = Reader(connect(), queue)
    until(lambda: reader._turn() or len(reader.messages) >= 3)
    before, odd, after = reader.messages
    assert (before.payload, after.payload) == ("before", "after")
    assert (odd.headers, odd.body) == ({}, None)
    odd.reject()
    before.ack()
    after.ack()
    assert unacked(redis_client, key_prefix) == (set(), set())


@pytest.mark.parametrize("items", ["3", [], None, -1, 0, 1.5, 10**9, True, {"a": 1}, float("nan")])
def test_a_header_that_is_no_count_of_items_counts_as_one(connect: Callable[..., Connection], queue: str, items: Any) -> None:
    send(connect("redis"), queue, "odd", headers={"items": items})
    send(connect("redis"), queue, *range(3), headers={"items": 1})
    assert Reader(connect(), queue, prefetch=4).read(4) == ["odd", 0, 1, 2]


def test_a_consumer_without_acknowledgements_gets_each_message_once(
    connect: Callable[..., Connection], queue: str, redis_client: redis.Redis, key_prefix: str
) -> None:
    """As what asks workers by remote control does."""
    send(connect(), queue, 1, 2)
    reader = Reader(connect(), queue, no_ack=True)
    assert reader.read(2) == [1, 2]
    assert reader.reads_nothing()
    assert unacked(redis_client, key_prefix) == (set(), set())
    assert redis_client.llen(queue) == 0


def test_fanout_still_works(connect: Callable[..., Connection], queue: str) -> None:
    """Celery's remote control."""
    exchange = Exchange(f"{queue}.control", type="fanout", durable=False)
    connection = connect()
    reader = Reader(connection, queue)
    heard: list[Any] = []
    inbox = Queue(f"{queue}.inbox", exchange, durable=False, auto_delete=True)
    listener = Consumer(connection.default_channel, [inbox], on_message=heard.append, no_ack=True)
    listener.consume()
    assert reader.reads_nothing()  # and is subscribed by now
    with connect().Producer() as producer:
        producer.publish("ping", exchange=exchange, declare=[exchange])
    send(connect(), queue, "work")
    assert reader.read(1) == ["work"]
    until(lambda: reader._turn() or heard)
    assert heard[0].payload == "ping"


def test_a_worker_killed_at_any_moment_loses_no_message(
    url: str, queue: str, redis_client: redis.Redis, key_prefix: str, repository: Path
) -> None:
    """Whatever is not on its list any more is in the unacked hash: stock kombu cannot say so."""
    code = textwrap.dedent("""
        import sys
        from kombu import Connection, Consumer, Queue
        from tasks.transport.claiming import ClaimingTransport
        url, queue, prefix = sys.argv[1:]
        options = {"unacked_key": prefix + "-unacked", "unacked_index_key": prefix + "-index"}
        connection = Connection(url, transport=ClaimingTransport, transport_options=options)
        consumer = Consumer(connection.default_channel, [Queue(queue, exchange="", routing_key=queue)], on_message=lambda m: None)
        consumer.qos(prefetch_count=0)
        consumer.consume()
        print("ready", flush=True)
        while True:
            connection.drain_events()
    """)
    total = 0
    environment = os.environ | {"INFERENCE_CONFIG": "configurations/local.yaml"}
    with Connection(url) as connection:
        for round_number in range(4):
            worker = subprocess.Popen(
                [sys.executable, "-c", code, url, queue, key_prefix], cwd=repository, env=environment, stdout=subprocess.PIPE
            )
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"ready\n"
            killer = threading.Timer(0.3 + 0.05 * round_number, worker.send_signal, [signal.SIGKILL])
            killer.start()
            while killer.is_alive():
                send(connection, queue, *range(10))
                total += 10
            killer.join()
            worker.wait(TIMEOUT_S)
            worker.stdout.close()
    noted, indexed = unacked(redis_client, key_prefix)
    assert noted == indexed
    waiting: Any = redis_client.lrange(queue, 0, -1)
    tags = {json.loads(message)["properties"]["delivery_tag"].encode() for message in waiting}
    assert noted, "no worker took anything: the test shows nothing"
    assert len(noted) + len(tags) == len(noted | tags) == total
