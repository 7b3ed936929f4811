"""One way to reach Redis: where the embedded broker's socket is, and that Celery and we mean the same server and database."""

from __future__ import annotations

from pathlib import Path

import pytest
from kombu import Connection, Queue
from kombu.simple import SimpleQueue
from support.redis_server import own_redis_server
from support.samples import a_message, a_request
from support.waiting import TIMEOUT_S, together

from inference.broker.redis import RedisBroker
from inference.runtime.redis import (
    broker_url,
    connect,
    embedded_socket,
    kombu_sentinel_options,
    kombu_tls,
    kombu_url,
    task_store_url,
)
from inference.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def with_broker(url: str) -> Settings:
    return load_settings(None, {"broker": {"url": url}})


class TestSocket:
    def test_it_is_in_the_data_folder(self) -> None:
        assert embedded_socket(Path("/data")) == Path("/data/broker/broker.sock")

    def test_every_spelling_of_the_folder_is_the_same_socket(self, tmp_path: Path) -> None:
        for folder in (Path("data"), Path("./data"), Path("data/../data"), tmp_path / "data"):
            assert embedded_socket(folder) == embedded_socket(tmp_path / "data")

    def test_a_folder_with_a_long_name_has_a_short_socket_of_its_own(self, tmp_path: Path) -> None:
        long = [tmp_path / ("ö" * 100) / name for name in ("a", "b")]
        sockets = [embedded_socket(folder) for folder in long]
        assert all(len(str(socket).encode()) <= 100 for socket in sockets)
        assert sockets[0] != sockets[1]
        assert sockets == [embedded_socket(folder) for folder in long]


class TestUrls:
    def test_the_embedded_broker_is_the_record_store_too(self) -> None:
        settings = load_settings(None)
        assert broker_url(settings) == task_store_url(settings) == f"unix://{embedded_socket(Path('data'))}?db=0"

    def test_a_record_store_may_be_another_server(self) -> None:
        settings = load_settings(None, {"broker": {"url": "redis://one/0"}, "task_store": {"url": "redis://two/1"}})
        assert (broker_url(settings), task_store_url(settings)) == ("redis://one/0", "redis://two/1")

    @pytest.mark.parametrize(
        ("url", "server", "database"),
        [
            ("redis://host", ("host", 6379), 0),
            ("redis://host:7000/3", ("host", 7000), 3),
            ("rediss://user:pass@host:7000/1", ("host", 7000), 1),
        ],
    )
    def test_celery_means_the_same_database(self, url: str, server: tuple[str, int | None], database: int) -> None:
        settings = with_broker(url)
        ours = connect(broker_url(settings)).connection_pool.connection_kwargs
        assert (ours["host"], ours.get("port"), ours.get("db") or 0) == (*server, database)
        with Connection(kombu_url(settings)) as theirs:
            assert (theirs.hostname, theirs.port) == server
            assert int(theirs.virtual_host.strip("/") or 0) == database

    @pytest.mark.parametrize("url", ["redis://host?db=3", "redis://host:7000/2?db=3"])
    def test_a_database_that_celery_would_not_understand_is_translated(self, url: str) -> None:
        with Connection(kombu_url(with_broker(url))) as theirs:
            assert theirs.virtual_host == "3"

    def test_celery_gets_the_same_certificates(self, tmp_path: Path) -> None:
        (tmp_path / "ca.crt").touch()
        settings = with_broker("rediss://host?ssl_ca_certs=ca.crt&ssl_check_hostname=false")
        assert kombu_tls(settings) == {
            "ssl_cert_reqs": "required",  # which kombu would not ask for by itself
            "ssl_ca_certs": "ca.crt",
            "ssl_check_hostname": False,
        }
        assert kombu_url(settings) == "rediss://host:6379/0"

    def test_celery_gets_all_sentinels_and_what_each_needs(self) -> None:
        settings = with_broker("sentinels://me:p%3Bw@one:1,[::1]:2/3?master=m&sentinel_password=s")
        assert kombu_url(settings) == "sentinel://me:p%3Bw@one:1/3;sentinel://me:p%3Bw@[::1]:2/3"
        options = kombu_sentinel_options(settings)
        assert options["master_name"] == "m"
        assert (options["sentinel_kwargs"]["password"], options["sentinel_kwargs"]["ssl"]) == ("s", True)

    @pytest.mark.parametrize("url", ["redis://host", "unix:///run/redis.sock", "amqp://host"])
    def test_celery_gets_nothing_else_where_nothing_else_is_needed(self, url: str) -> None:
        settings = load_settings(None, {"broker": {"url": url}, "task_store": {"url": "redis://host"}})
        assert (kombu_tls(settings), kombu_sentinel_options(settings)) == (None, {})


def test_more_may_ask_at_once_than_redis_py_lets() -> None:
    with own_redis_server() as server, connect(server.url) as client:
        answers = together([lambda: client.blpop(["nothing"], timeout=1)] * 150)
    assert answers == [None] * 150


@pytest.mark.parametrize(
    ("credentials", "options", "password"),
    [
        ("", "", ""),
        ("", "?db=2", ""),
        ("", "?db=2&password=secret", "secret"),
        ("", "?password=p%40ss%2Fword&db=2", "p@ss/word"),
        (":secret@", "?db=2", "secret"),
        (":p%40ss%2Fword@", "", "p@ss/word"),
    ],
)
def test_celery_takes_from_the_socket_what_we_put_there(credentials: str, options: str, password: str) -> None:
    with own_redis_server() as server:
        with connect(server.url) as admin:
            admin.config_set("requirepass", password)
        path = server.url.removeprefix("unix://").partition("?")[0]
        settings, message = with_broker(f"unix://{credentials}{path}{options}"), a_message(a_request())
        with connect(broker_url(settings)) as client:
            RedisBroker(client, shares_store=False).publish("queue", message)
        with (
            Connection(kombu_url(settings)) as connection,
            SimpleQueue(connection, Queue("queue", exchange="", routing_key="queue")) as consumer,
        ):
            received = consumer.get(timeout=TIMEOUT_S)
            received.ack()
        assert received.headers["id"] == message.items[0].task_id
