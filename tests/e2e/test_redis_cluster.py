"""The whole service on a Redis Cluster of one shard, where all keys of a call must be in one slot."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import requests
from kombu import Connection, Queue
from support.redis_nodes import RedisNode, one_shard_cluster
from support.samples import a_message, a_request
from support.service import ROOT, Service, wait_until

from inference.broker.redis import RedisBroker
from inference.errors import ConfigurationError
from inference.runtime.redis import connect, kombu_url
from inference.settings import Settings, load_settings
from inference.status.redis_durability import check_redis
from tasks.transport.claiming import ClaimingTransport

PREFIX = "{cluster}"
DIGIT = ROOT / "samples/digit_7.png"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisNode]:
    with one_shard_cluster(tmp_path_factory.mktemp("cluster")) as node:
        yield node


def options(node: RedisNode, prefix: str) -> dict[str, Any]:
    return {"models": ["models/digits"], "broker": {"url": node.url(db=0)}, "task_store": {"key_prefix": prefix}}


def slots(client: redis.Redis, pattern: str) -> dict[int, list[bytes]]:
    """The keys by their slots."""
    found: dict[int, list[bytes]] = {}
    for key in client.scan_iter(pattern, count=1000):
        slot: Any = client.execute_command("CLUSTER KEYSLOT", key)
        found.setdefault(slot, []).append(key)
    return found


def test_keys_need_a_hash_tag(node: RedisNode, caplog: pytest.LogCaptureFixture) -> None:
    check_redis(load_settings(None, options(node, PREFIX)))
    with pytest.raises(ConfigurationError, match=r"part of a Redis Cluster; set task_store\.key_prefix to a hash tag"):
        check_redis(load_settings(None, options(node, "inference")))
    assert caplog.messages == []


class TestBroker:
    """Kombu's transport, ours and its own."""

    @pytest.fixture
    def settings(self, node: RedisNode) -> Settings:
        return load_settings(None, options(node, "{broker}"))

    @pytest.fixture
    def broker(self, settings: Settings) -> Iterator[RedisBroker]:
        with connect(settings.broker.url) as client:
            yield RedisBroker(client, shares_store=False, key_prefix=settings.broker_key_prefix)

    @pytest.fixture
    def opened(self, settings: Settings) -> Iterator[Callable[[Any], Connection]]:
        made: list[Connection] = []

        def opened(transport: Any) -> Connection:
            transport_options = {"global_keyprefix": settings.broker_key_prefix}
            made.append(Connection(kombu_url(settings), transport=transport, transport_options=transport_options))
            return made[-1]

        yield opened
        for connection in made:
            connection.release()

    @pytest.mark.parametrize("transport", [ClaimingTransport, "redis"])
    def test_messages_are_taken_acknowledged_returned_and_purged(
        self, broker: RedisBroker, opened: Callable[[Any], Connection], node: RedisNode, transport: Any
    ) -> None:
        queue = "predict.cluster"
        for priority in (0, 9, 4):
            broker.publish(queue, a_message(a_request()), priority)
        assert broker.get_depth(queue) == 3
        connection, taken = opened(transport), list[Any]()
        declared = Queue(queue, exchange="", routing_key=queue)
        consumer = connection.Consumer([declared], callbacks=[lambda _body, message: taken.append(message)])
        with consumer:
            while len(taken) < 3:
                connection.drain_events(timeout=60)
            assert [message.properties["priority"] for message in taken] == [0, 5, 9]
            taken[0].ack()
            taken[1].requeue()
            taken[2].requeue()
            consumer.cancel()
            with node.client() as client:
                wait_until(lambda: client.hlen("{broker}:unacked") == 0, timeout_s=60, what="the messages are returned")
        assert broker.get_depth(queue) == 2
        with node.client() as client:
            assert len(slots(client, "{broker}:*")) == 1
        assert declared(connection.channel()).purge() == 2

    def test_messages_of_owners_are_taken(
        self, broker: RedisBroker, opened: Callable[[Any], Connection], node: RedisNode
    ) -> None:
        queue = "predict.owners"
        for owner in ("ann", "ann", "bob"):
            broker.publish(queue, a_message(a_request()), owner=owner)
        assert (broker.get_depth(queue), broker.get_owners(queue)) == (3, {"ann", "bob"})
        with node.client() as client:
            assert len(slots(client, "{broker}:*")) == 1
        connection, taken = opened(ClaimingTransport), list[Any]()
        declared = Queue(queue, exchange="", routing_key=queue)
        with connection.Consumer([declared], callbacks=[lambda _body, message: taken.append(message)], no_ack=True):
            while len(taken) < 3:
                connection.drain_events(timeout=60)
        assert broker.get_depth(queue) == 0


@pytest.mark.process
def test_a_service_at_work_has_all_keys_in_one_slot(node: RedisNode, tmp_path: Path) -> None:
    service = Service(tmp_path, options(node, PREFIX))

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=service.environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    try:
        service.start()
        assert (
            service.post(DIGIT, request_id="r", priority="9", headers={"Idempotency-Key": "k"}).json()["response"]["class"] == 7
        )
        tasks = [service.submit(DIGIT) for _ in range(3)]
        files = [("image", ("7.png", DIGIT.read_bytes(), "image/png"))] * 3
        batch = requests.post(f"{service.url}/inference/batch", files=files, timeout=30)
        assert batch.ok, batch.text
        requests.delete(f"{service.url}/tasks/{tasks[2]}", timeout=60)
        assert service.task(tasks[0], wait_s=30)["status"] == "succeeded"
        results = service.data_dir / "results.jsonl"
        wait_until(
            lambda: results.exists() and tasks[0] in results.read_text("utf-8"), timeout_s=20, what="a result is delivered"
        )
        assert "pong" in run("-m", "celery", "-A", "tasks", "inspect", "ping", "--timeout", "5")
        assert json.loads(run("server.py", "status", "--json"))["workers"]
        with node.client() as client:
            (keys,) = slots(client, "*{cluster}*").values()
            assert b"{cluster}:_kombu.binding.celery.pidbox" in keys
            others = [key for key in client.scan_iter() if not key.startswith((b"{cluster}", b"{broker}"))]
        assert others == []
    finally:
        service.end()
