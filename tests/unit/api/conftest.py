"""Fixtures of the API's tests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from api_rig import LISTS, OWNER_LISTS, FakeWorker, MakeApp, services_of
from command_workers import Workers
from event_reading import Events, Watch
from flask import Flask
from flask.testing import FlaskClient
from support.contract import CheckedClient
from support.waiting import until

from api import create_app
from api.components import components_of
from inference.rollout.worker_registry import LoadedModelInfo, WorkerInfo
from inference.settings import Settings


@pytest.fixture
def make_app(repository: Path, redis_url: str, redis_client: redis.Redis, key_prefix: str, tmp_path: Path) -> Iterator[MakeApp]:
    """Makes the application of one API process; settings are given by section."""
    redis_client.delete(*LISTS, *OWNER_LISTS)
    apps: list[Flask] = []

    def make(**sections: Any) -> Flask:
        defaults: dict[str, Any] = {
            "data_dir": tmp_path,
            "models": (repository / "models" / "digits",),
            "broker": {"url": redis_url, "transport": "stock"},  # `FakeWorker` knows no turns of owners
            "task_store": {"key_prefix": key_prefix},
        }
        if "ensemble" not in sections:  # it says where results go by itself
            defaults["sinks"] = ()
        app = create_app(Settings(**(defaults | sections)))
        app.test_client_class = CheckedClient
        apps.append(app)
        return app

    yield make
    for app in apps:
        replies = components_of(app).replies
        replies.stop()
        redis_client.publish(replies.channel, b"")  # wakes it up
    for app in apps:
        replies = components_of(app).replies
        if replies._thread is not None:
            replies._thread.join(10)
        until(lambda app=app: components_of(app).events._thread is None, "the end of the reader of events")
        services_of(app).keys.close()
        services_of(app).redis.close()


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def idle_worker(app: Flask, redis_client: redis.Redis) -> Iterator[FakeWorker]:
    """A worker that does nothing until it is started or told to work off the queue."""
    worker = FakeWorker(services_of(app), redis_client)
    yield worker
    worker.stop()


@pytest.fixture
def worker(idle_worker: FakeWorker) -> FakeWorker:
    """Worker that answers all tasks."""
    return idle_worker.start()


@pytest.fixture(autouse=True)
def _quick_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the reader of event streams look more often, and so end sooner."""
    monkeypatch.setattr("api.events.hub._READ_TIMEOUT_S", 0.05)
    monkeypatch.setattr("api.events.hub.INTERVAL_S", 0.05)
    monkeypatch.setattr("api.events.hub._CHECK_INTERVAL_S", 0.2)


@pytest.fixture
def watch(client: FlaskClient) -> Iterator[Watch]:
    """Opens event streams, and closes them at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda path, headers=None: stack.enter_context(contextlib.closing(Events(client, path, headers)))


@pytest.fixture
def announce(app: Flask) -> Callable[[], None]:
    """Say that a worker has the digits model loaded."""

    def announce() -> None:
        model = services_of(app).models.get("digits")
        info = LoadedModelInfo(model.name, model.version, model.digest, 0.5)
        services_of(app).presence.announce(WorkerInfo("test-worker", (info,)))

    return announce


@pytest.fixture
def workers(app: Flask, redis_client: redis.Redis) -> Iterator[Workers]:
    """Workers that follow commands."""
    workers = Workers(app, redis_client)
    workers.start()
    yield workers
    workers.stop()


@pytest.fixture
def no_other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has to be waited for that follows a command a second later."""
    monkeypatch.setattr("api.commands.READING_AGE_S", 0.0)
