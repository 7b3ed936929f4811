"""Servers go away and come back while no supervisor is there: every part goes on as the process that it was."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import requests
import yaml
from support.client import wait_until
from support.parts import Parts
from support.tcp_proxy import TcpProxy
from support.tenant import Tenant

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]

METADATA = json.dumps({"shape": [8, 8, 1], "dtype": "float32"})
IMAGE = np.zeros((8, 8, 1), "<f4").tobytes()
SETTINGS = {
    "models": ["models/digits"],
    "task_store": {"lease_s": 2, "lost_grace_s": 1},
    "relay": {"claim_idle_s": 2, "max_backoff_s": 1},
}
PARTS = ("api", "worker", "relay")
REDIS_RESTARTS = 6
LOAD_INTERVAL_S = 0.03


class Load:
    """Asynchronous requests at a steady rate, whatever the answers are."""

    def __init__(self, parts: Parts) -> None:
        self.accepted: list[str] = []
        self.statuses: set[int] = set()
        self._parts = parts
        self._stopping = threading.Event()

    @contextmanager
    def run(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._send) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join(120)

    def _send(self) -> None:
        while not self._stopping.wait(2 * LOAD_INTERVAL_S):
            answer = self._parts.post(IMAGE, metadata=METADATA, mode="async")
            self.statuses.add(answer.status_code)
            if answer.ok:
                self.accepted.append(answer.json()["task_id"])


def pids(parts: Parts) -> Mapping[str, int]:
    parts.assert_running()
    return {name: parts.pid(name) for name in PARTS}


def succeeds(parts: Parts) -> bool:
    parts.assert_running()
    return parts.post(IMAGE, metadata=METADATA).ok


@pytest.fixture
def on_redis(tmp_path: Path) -> Iterator[Parts]:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(SETTINGS | {"data_dir": str(tmp_path / "data")}), encoding="utf-8")
    parts = Parts(tmp_path, config, {})
    try:
        parts.start_broker()
        start_parts(parts)
        yield parts
    finally:
        parts.stop_all()


def start_parts(parts: Parts) -> None:
    parts.start_worker("worker")
    parts.start_relay("relay")
    parts.start_api()
    parts.wait_ready()


def test_redis_is_killed_and_started_again_and_again(on_redis: Parts) -> None:
    before, load = pids(on_redis), Load(on_redis)
    with load.run():
        for _ in range(REDIS_RESTARTS):
            time.sleep(2)
            on_redis.kill("broker")
            time.sleep(0.5)
            on_redis.start_broker()
            wait_until(lambda: succeeds(on_redis), timeout_s=60, what="a request is served again")
    assert pids(on_redis) == before
    assert load.statuses <= {202, 503}
    assert len(load.accepted) > REDIS_RESTARTS
    ends = {on_redis.task(task_id, wait_s=30)["status"] for task_id in load.accepted}
    assert ends == {"succeeded"}


@pytest.fixture
def rabbitmq(services_env: dict[str, str]) -> Iterator[TcpProxy]:
    """A way to the real server that can be cut."""
    proxy = TcpProxy(services_env["AMQP_URL"].rpartition("@")[2].partition("/")[0])
    yield proxy
    proxy.cut()


@pytest.fixture
def on_rabbitmq(services_env: dict[str, str], rabbitmq: TcpProxy, tmp_path: Path) -> Iterator[Parts]:
    tenant = Tenant(services_env, tmp_path)
    server = services_env["AMQP_URL"].rpartition("@")[2].partition("/")[0]
    settings = SETTINGS | {
        "data_dir": str(tmp_path / "data"),
        "models": json.loads(tenant.variables["INFERENCE_MODELS"]),
        "broker": {"url": services_env["AMQP_URL"].replace(server, rabbitmq.address)},
        "task_store": SETTINGS["task_store"] | {"url": tenant.env["REDIS_URL"], "key_prefix": tenant.name},
    }
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    parts = Parts(tmp_path, config, {})
    try:
        start_parts(parts)
        yield parts
    finally:
        parts.stop_all()
        tenant.leave()


@pytest.mark.services
def test_rabbitmq_goes_away_without_load(on_rabbitmq: Parts, rabbitmq: TcpProxy) -> None:
    before = pids(on_rabbitmq)
    assert succeeds(on_rabbitmq)
    rabbitmq.cut()
    until_s = time.monotonic() + 5
    while time.monotonic() < until_s:
        ready = requests.get(f"{on_rabbitmq.url}/health/ready", timeout=30)
        assert ready.status_code in (200, 503), ready.text
        on_rabbitmq.assert_running()
        time.sleep(0.3)
    assert ready.status_code == 503
    assert "broker" in ready.json()["checks"]
    rabbitmq.mend()
    wait_until(lambda: succeeds(on_rabbitmq), timeout_s=60, what="a request is served again")
    assert pids(on_rabbitmq) == before
