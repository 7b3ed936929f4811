"""Running services, shared by the tests that leave them as they found them."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection
from playwright.sync_api import Browser
from support.api_process import ApiProcess
from support.browser import browser
from support.celery_user import CeleryUser, Parts, digits_named
from support.client import free_port
from support.contract import checked_requests
from support.service import Service, wait_until
from support.wheel import Installation, build_wheel

#: Database of the Redis server for the records of tasks that are queued in RabbitMQ; all keys with our prefix are ours.
_DATABASE = 12

MakeApi = Callable[..., ApiProcess]


@pytest.fixture(scope="session", autouse=True)
def contract() -> Iterator[None]:
    """Compare every answer with the OpenAPI document."""
    with checked_requests():
        yield


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The default model and the digits, on the embedded default, with the metrics of each part."""
    folder: Path = tmp_path_factory.mktemp("service")
    settings = {
        "models": ["models/efficientnet-lite0", "models/digits"],
        "sample_image": "samples/chelsea.jpg",
        "monitoring": {"worker_port": free_port(), "relay_port": free_port()},
    }
    running = Service(folder, settings)
    try:
        running.start()
        yield running
    finally:
        running.end()


@pytest.fixture(scope="module")
def chromium(repository: Path) -> Iterator[Browser]:
    """A browser of which each visitor has a context."""
    with browser(repository) as running:
        yield running


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The wheel in an environment of its own, whose command is used in a folder of the user."""
    return Installation(wheel, tmp_path_factory.mktemp("installation"))


@pytest.fixture(scope="session", params=["redis", pytest.param("rabbitmq", marks=pytest.mark.services)])
def celery_user(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CeleryUser]:
    """A service on each broker, its worker under a node name and on a queue of its own; 4 messages are prefetched."""
    folder = tmp_path_factory.mktemp("celery")
    name = f"digits-{uuid.uuid4().hex[:8]}"
    settings: dict[str, Any] = {
        "models": [str(digits_named(name, folder))],
        "worker": {"max_batch_size": 2, "prefetch_batches": 2},
        "task_store": {"requeue_lost_after_s": 1, "key_prefix": name},
        "s3": {"secret_key": "a-secret-of-a-test"},
    }
    with contextlib.ExitStack() as stack:
        if request.param == "rabbitmq":
            env = request.getfixturevalue("services_env")
            stack.callback(_leave, env, name)
            settings["broker"] = {"url": env["AMQP_URL"]}
            settings["task_store"] |= {"url": _records(env)}
        parts = stack.enter_context(Parts(Service(folder, settings)))
        if request.param == "redis":
            parts.start("broker", "server.py", "broker")
        parts.start("relay", "server.py", "relay")
        parts.start("api", "server.py", "api", "--port", str(parts.service.port))
        queue = f"predict.{name}"
        node = parts.start_worker("worker", queue)
        parts.wait_ready()
        user = CeleryUser(parts, node, queue)
        wait_until(user.is_there, timeout_s=30, what="the worker listens to remote control")
        stack.callback(user.hang_up)
        yield user


@pytest.fixture
def make_api(tmp_path: Path, redis_url: str) -> Iterator[MakeApi]:
    """Starts an API process; its settings are `api`'s."""
    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> ApiProcess:
            api = ApiProcess(tmp_path, redis_url, **options)
            stack.callback(api.end)
            return api.wait()

        yield make


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[ApiProcess]:
    """API with the default settings."""
    api = ApiProcess(tmp_path_factory.mktemp("api"), redis_url)
    try:
        yield api.wait()
    finally:
        api.end()


def _records(env: dict[str, str]) -> str:
    return env["REDIS_URL"].rpartition("/")[0] + f"/{_DATABASE}"


def _leave(env: dict[str, str], name: str) -> None:
    """Remove our data from the servers."""
    with Connection(env["AMQP_URL"]) as connection, contextlib.closing(connection.channel()) as channel:
        channel.queue_delete(f"predict.{name}")
        channel.exchange_delete(f"predict.{name}")
    with redis.Redis.from_url(_records(env)) as client:
        if keys := list(client.scan_iter(f"{name}:*", count=1000)):
            client.delete(*keys)
