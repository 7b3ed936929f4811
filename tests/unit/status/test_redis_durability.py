"""A Redis server that may lose what it has accepted is told at the start and by `status`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from support.redis_server import RedisServer, own_redis_server

from inference.container import Services
from inference.errors import ConfigurationError
from inference.runtime.redis import connect
from inference.settings import Settings, load_settings
from inference.status.collect import Status, status_of
from inference.status.redis_durability import RedisServer as Facts
from inference.status.redis_durability import check_redis
from inference.status.render import status_table

EVICTING = ["allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with own_redis_server() as server:
        yield server


@pytest.fixture
def settings(server: RedisServer, tmp_path: Path) -> Iterator[Settings]:
    yield with_broker(server.url, tmp_path)
    with connect(server.url) as admin:
        admin.config_set("maxmemory-policy", "noeviction")
        admin.config_set("appendonly", "yes")
        admin.execute_command("ACL", "SETUSER", "default", "+@all")


def with_broker(url: str, folder: Path, /, **task_store: Any) -> Settings:
    return load_settings(
        None, {"data_dir": folder, "models": ["models/digits"], "broker": {"url": url}, "task_store": task_store, "sinks": []}
    )


def configure(url: str, **options: str) -> None:
    with connect(url) as admin:
        for name, value in options.items():
            admin.config_set(name.replace("_", "-"), value)


def status(settings: Settings) -> Status:
    return status_of(Services(settings))


def test_a_server_that_keeps_all_is_well(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    check_redis(settings)
    assert caplog.messages == []
    found = status(settings)
    assert (found.problems, found.warnings) == (("no worker has digits loaded",), ())


@pytest.mark.parametrize("policy", EVICTING)
def test_a_server_that_evicts_ends_the_start_and_is_a_problem(settings: Settings, policy: str) -> None:
    configure(settings.broker.url, maxmemory_policy=policy)
    with pytest.raises(ConfigurationError) as caught:
        check_redis(settings)
    assert caught.value.detail.startswith("broker.url: the Redis server evicts keys")
    assert f"maxmemory-policy {policy}" in caught.value.detail
    assert "task_store.allow_eviction" in caught.value.detail
    found = status(settings)
    assert f"maxmemory-policy {policy}" in found.problems[0]
    assert "all is well" not in status_table(found)


def test_the_record_store_is_named_by_its_own_key(server: RedisServer, settings: Settings, tmp_path: Path) -> None:
    configure(server.url, maxmemory_policy="volatile-ttl")
    for broker in ("amqp://h", "redis://nobody.invalid", server.url):
        with pytest.raises(ConfigurationError, match=r"^task_store\.url: the Redis server evicts"):
            check_redis(with_broker(broker, tmp_path, url=server.url))
    assert settings.broker.url == server.url


def test_who_says_so_may_start_on_a_server_that_evicts(
    server: RedisServer, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    configure(settings.broker.url, maxmemory_policy="allkeys-lru")
    allowed = with_broker(server.url, tmp_path, allow_eviction=True)
    check_redis(allowed)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "evicts keys" in status(allowed).problems[0]


def test_a_server_without_append_only_file_is_a_warning(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    configure(settings.broker.url, appendonly="no")
    check_redis(settings)
    assert "has no append-only file" in caplog.text
    found = status(settings)
    assert found.problems == ("no worker has digits loaded",)
    assert "has no append-only file" in found.warnings[0]
    assert "\nwarning: broker.url: " in status_table(found)


def test_a_server_that_forbids_info_is_unknown(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    with connect(settings.broker.url) as admin:
        admin.execute_command("ACL", "SETUSER", "default", "-info")
    check_redis(settings)
    assert "does not tell whether the Redis server evicts keys" in caplog.text


def test_a_server_that_is_down_does_not_end_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_redis(with_broker(f"unix://{tmp_path}/none.sock", tmp_path))
    assert "does not answer" in caplog.text


@pytest.mark.parametrize(("url", "says"), [("redis", "the user or the password"), ("99", "the database")])
def test_a_server_that_refuses_us_ends_the_start(server: RedisServer, tmp_path: Path, url: str, says: str) -> None:
    path = server.url.partition("?")[0]
    wrong = f"{path}?db=99" if url == "99" else path.replace("unix://", "unix://someone:secret@")
    with pytest.raises(ConfigurationError, match=rf"^broker\.url: the Redis server refuses {says}") as caught:
        check_redis(with_broker(wrong, tmp_path))
    assert "secret" not in caught.value.detail


def test_a_replica_ends_the_start_and_is_a_problem(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = Redis.info
    monkeypatch.setattr(Redis, "info", lambda client, *sections: ask(client, *sections) | {"role": "slave"})
    with pytest.raises(ConfigurationError, match=r"^broker\.url: the server is a replica \(role:slave\)"):
        check_redis(settings)
    assert "is a replica" in status(settings).problems[0]


@pytest.mark.parametrize("error", [UnicodeError("label too long"), OSError("no certificate"), ValueError("no number")])
def test_a_server_that_cannot_be_asked_ends_the_start(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("redis.Redis.info", fail)
    with pytest.raises(ConfigurationError, match=rf"^broker\.url: no connection can be made: {error}$"):
        check_redis(settings)


@pytest.mark.parametrize(
    ("facts", "count"),
    [
        ({"version": "6.0.16"}, 1),
        ({"version": "6.2.0"}, 0),
        ({"shards": 1}, 1),
        ({"shards": None}, 1),
        ({"shards": 1, "has_hash_tag": True}, 0),
        ({"shards": None, "has_hash_tag": True}, 0),
        ({"shards": 3, "has_hash_tag": True}, 1),
    ],
)
def test_a_server_that_is_no_use_is_told(facts: dict[str, Any], count: int) -> None:
    assert len(list(Facts("broker.url", **facts).faults())) == count
