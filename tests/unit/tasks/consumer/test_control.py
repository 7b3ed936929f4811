"""Answers to Celery's remote control."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from kombu import Connection

from tasks.consumer import control


def stats_of(connection: Connection) -> Any:
    """The answer of a worker with this connection to `inspect stats`."""
    broker = connection.info()
    broker.pop("password", None)  # as Celery does
    controller = SimpleNamespace(stats=lambda: {"total": {}, "broker": broker})
    return control.stats(SimpleNamespace(consumer=SimpleNamespace(controller=controller)))


def test_statistics_show_no_password_of_the_sentinels() -> None:
    options = {"master_name": "m", "sentinel_kwargs": {"username": "me", "password": "S3krit"}, "socket_timeout": 10}
    stats = stats_of(Connection("sentinel://:S3krit@one:1/0;sentinel://:S3krit@two:2/0", transport_options=options))
    assert "S3krit" not in repr(stats)
    assert stats["broker"]["transport_options"]["master_name"] == "m"
    assert stats["broker"]["transport_options"]["sentinel_kwargs"]["username"] == "me"


def test_statistics_show_no_password_of_other_addresses() -> None:
    stats = stats_of(Connection("amqp://me:S3krit@one//;amqp://me:S3krit@two//"))
    assert "S3krit" not in repr(stats)
    assert (stats["broker"]["hostname"], stats["broker"]["userid"]) == ("one", "me")
