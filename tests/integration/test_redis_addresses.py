"""Each way to write a Redis server: redis-py, kombu and Flower all reach the same one, and follow a master that moves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from flower.utils.broker import Broker as FlowerBroker
from kombu import Connection, Queue
from kombu.simple import SimpleQueue
from support.certificates import Certificates, make_certificates
from support.redis_nodes import MASTER, PASSWORD, QUOTED_PASSWORD, Sentinels, client_tls, one_redis, redis_with_sentinels
from support.samples import a_message, a_request
from support.waiting import TIMEOUT_S, together, until

from inference.broker.redis import RedisBroker
from inference.errors import ServiceUnavailable
from inference.lifecycle.replies import ReplyRouter
from inference.runtime.redis import connect, kombu_sentinel_options, kombu_tls, kombu_url
from inference.settings import BrokerSettings, Settings
from inference.task_store.outbox import Outbox
from inference.task_store.redis_store import RedisTaskStore, StorePolicy

QUEUE = "predict.model"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("redis")
    match request.param:
        case "password":
            with one_redis(folder) as node:
                yield node.url(db=3)
        case "valkey":
            with one_redis(folder) as node:
                yield node.url(db=3).replace("redis://", "valkey://")
        case "tls":
            certificates = request.getfixturevalue("certificates")
            with one_redis(folder, certificates) as node:
                yield node.url(db=3)
        case "sentinels":
            with redis_with_sentinels(folder) as servers:
                yield servers.url(db=3)
        case "sentinels with tls":
            certificates = request.getfixturevalue("certificates")
            with redis_with_sentinels(folder, certificates) as servers:
                yield servers.url(db=3, options=f"&{_options(certificates)}")


def _options(certificates: Certificates) -> str:
    return "&".join(f"{name}={value}" for name, value in client_tls(certificates).items())


@contextmanager
def kombu_connection(settings: Settings) -> Iterator[Connection]:
    options = {"socket_connect_timeout": 5} | kombu_sentinel_options(settings)
    with Connection(kombu_url(settings), ssl=kombu_tls(settings) or False, transport_options=options) as connection:
        yield connection


@contextmanager
def kombu_queue(connection: Connection) -> Iterator[SimpleQueue]:
    with SimpleQueue(connection, Queue(QUEUE, exchange="", routing_key=QUEUE)) as queue:
        yield queue


@pytest.mark.parametrize("url", ["password", "valkey", "tls", "sentinels", "sentinels with tls"], indirect=True)
class TestEachForm:
    @pytest.fixture
    def settings(self, url: str) -> Settings:
        return Settings(broker=BrokerSettings(url=url))

    def test_celery_takes_what_we_put_there(self, url: str, settings: Settings) -> None:
        message = a_message(a_request())
        with connect(url) as client:
            RedisBroker(client, shares_store=False).publish(QUEUE, message)
        with kombu_connection(settings) as connection, kombu_queue(connection) as queue:
            received = queue.get(timeout=TIMEOUT_S)
            received.ack()
        assert received.headers["id"] == message.items[0].task_id

    def test_flower_counts_it(self, url: str, settings: Settings) -> None:
        """Count like Flower, from the attributes of Celery's connection (flower/views/__init__.py)."""
        with connect(url) as client:
            ours = RedisBroker(client, shares_store=False)
            ours.publish(QUEUE, a_message(a_request()))
            in_database_3 = ours.get_depth(QUEUE)
        with kombu_connection(settings) as connection:
            options = connection.transport_options
            broker = FlowerBroker(connection.as_uri(include_password=True), broker_options=options, broker_use_ssl=connection.ssl)
        found: Any = asyncio.run(broker.queues([QUEUE]))
        # Flower asks a master that sentinels know for database 0, whatever the URL says.
        assert found == [{"name": QUEUE, "messages": 0 if "sentinel" in url else in_database_3}]

    def test_a_wrong_password_is_told_without_it(self, url: str) -> None:
        wrong = url.replace(QUOTED_PASSWORD, "wr0ng")
        with connect(wrong) as client, pytest.raises(ServiceUnavailable) as caught:
            RedisBroker(client, shares_store=False).get_depth(QUEUE)
        assert "wr0ng" not in caught.value.detail


def test_a_server_that_another_authority_vouches_for_is_refused(certificates: Certificates, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = make_certificates(tmp_path / "other")
    with one_redis(tmp_path, certificates) as node:
        strange = node.url(db=0).replace(str(certificates.authority), str(other.authority))
        with connect(strange) as client, pytest.raises(redis.ConnectionError, match="certificate verify failed"):
            client.ping()


class TestAMasterThatMoves:
    @pytest.fixture
    def servers(self, tmp_path: Path) -> Iterator[Sentinels]:
        with redis_with_sentinels(tmp_path) as servers:
            yield servers

    def test_scripts_replies_and_the_outbox_go_on_with_the_new_one(self, servers: Sentinels, key_prefix: str) -> None:
        client = connect(servers.url())
        store = RedisTaskStore(client, StorePolicy(key_prefix))
        outbox = Outbox(connect(servers.url()), key_prefix, "jsonl", "a relay")
        router = ReplyRouter(client, store, key_prefix)
        before = a_request()
        store.accept(before, enqueue=None, max_queue_depth=0)
        outbox.open()
        with router.expect(before.task_id) as waiter:
            until(lambda: dict(client.pubsub_numsub(router.channel)) == {router.channel.encode(): 1}, "somebody listens")
            servers.wait_until_replicated()

            servers.master.kill()
            servers.sentinels[0].kill()  # it was on the same host

            after = a_request(reply_to=router.channel)
            until(lambda: _accepted(store, after), "the new master takes a task", timeout_s=30)
            until(lambda: dict(client.pubsub_numsub(router.channel)) == {router.channel.encode(): 1}, "somebody listens again")
            store.cancel(before.task_id)
            outcome = waiter.wait(TIMEOUT_S)
        router.stop()
        assert outcome is not None
        assert store.get(after.task_id).status == "queued"
        outbox.open()
        assert outbox.take(1, block_ms=10) == []

    def test_who_waits_at_a_master_that_becomes_a_replica_is_told_to_try_again(self, servers: Sentinels, key_prefix: str) -> None:
        outbox = Outbox(connect(servers.url()), key_prefix, "jsonl", "a relay")
        outbox.open()

        def wait_for_entries() -> str:
            try:
                for _ in range(100):
                    outbox.take(1, block_ms=1000)
            except ServiceUnavailable as error:
                return error.detail
            return "nothing happened"

        said, _ = together([wait_for_entries, lambda: str(servers.switch_over())])
        assert said.startswith("the task store")

    def test_no_sentinel_is_forgotten_though_many_ask_at_once(self, servers: Sentinels) -> None:
        servers.sentinels[0].kill()
        client = connect(servers.url())

        together([client.ping for _ in range(40)])

        pool: Any = client.connection_pool
        ports = {sentinel.connection_pool.connection_kwargs["port"] for sentinel in pool.sentinel_manager.sentinels}
        assert ports == {node.port for node in servers.sentinels}

    def test_without_a_sentinel_the_error_is_short(self, servers: Sentinels) -> None:
        for node in servers.sentinels:
            node.kill()
        store = RedisTaskStore(connect(servers.url()), StorePolicy())

        with pytest.raises(ServiceUnavailable) as caught:
            store.ping()

        assert caught.value.detail == f"the task store does not answer: no sentinel knows a {MASTER} that is up"
        assert PASSWORD not in str(caught.value.__cause__)


def _accepted(store: RedisTaskStore, request: Any) -> bool:
    try:
        return store.accept(request, enqueue=None, max_queue_depth=0).created
    except ServiceUnavailable:
        return False
