"""Messages that are rejected, left, unreadable, or held by a worker that is killed come again or are put aside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from claiming_rig import Reader, send, unacked
from kombu import Connection, Consumer, Exchange, Message, Queue
from support.waiting import TIMEOUT_S, until

from tasks.transport.claiming import ClaimingTransport


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
    """Workers that are asked by remote control get such messages."""
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
