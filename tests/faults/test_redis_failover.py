"""The service on Redis with sentinels, under load, while another server becomes the master."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest
import requests
from support.file_sink import file_documents
from support.redis_nodes import Sentinels, redis_with_sentinels
from support.service import Service, wait_until

pytestmark = pytest.mark.process

METADATA = json.dumps({"shape": [8, 8, 1], "dtype": "float32"})
IMAGE = np.zeros((8, 8, 1), "<f4").tobytes()


class Setup(NamedTuple):
    service: Service
    servers: Sentinels


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    folder = tmp_path_factory.mktemp("failover")
    with redis_with_sentinels(folder) as servers:
        settings = {
            "models": ["models/digits"],
            "broker": {"url": servers.url(db=2)},
            "task_store": {"lease_s": 2, "requeue_lost_after_s": 1},
            "relay": {"reclaim_after_s": 2, "max_backoff_s": 1},
        }
        service = Service(folder, settings)
        try:
            service.start()
            yield Setup(service, servers)
        finally:
            service.end()


class Load:
    """Asynchronous requests, one after the other."""

    def __init__(self, service: Service) -> None:
        self.accepted: list[str] = []
        self.answers: list[requests.Response] = []
        self._service = service
        self._stopping = threading.Event()

    @contextmanager
    def run(self) -> Iterator[None]:
        thread = threading.Thread(target=self._send)
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            thread.join(60)

    def wait_for_more(self, count: int = 20) -> None:
        before = len(self.accepted)
        wait_until(lambda: len(self.accepted) >= before + count, timeout_s=60, what=f"{count} more requests are accepted")

    def _send(self) -> None:
        while not self._stopping.wait(0.02):
            answer = self._service.post(IMAGE, metadata=METADATA, mode="async")
            self.answers.append(answer)
            if answer.ok:
                self.accepted.append(answer.json()["task_id"])


def test_what_was_replicated_ends_though_the_master_is_killed(running: Setup) -> None:
    service, servers = running
    load = Load(service)
    with load.run():
        load.wait_for_more()
        safe = list(load.accepted)
        servers.wait_until_replicated()
        before = servers.master
        before.kill()
        servers.sentinels[0].kill()  # it was on the same host
        servers.wait_for_other_master(before)
        accepted_until_then = len(load.accepted)
        load.wait_for_more()
    later = load.accepted[accepted_until_then:]

    assert {answer.status_code for answer in load.answers} <= {202, 503}
    ends = {task_id: service.task(task_id, wait_s=30)["status"] for task_id in safe + later[-10:]}
    assert set(ends.values()) == {"succeeded"}
    assert service.post(IMAGE, metadata=METADATA).ok
    wait_until(lambda: ends.keys() <= results(service).keys(), timeout_s=30, what="their results are delivered")

    before.start()
    servers.sentinels[0].start()
    servers.wait_until_replicated()


def test_a_switch_over_with_writes_paused_loses_nothing(running: Setup) -> None:
    """The switch-over follows docs/production.md."""
    service, servers = running
    load = Load(service)
    with load.run():
        load.wait_for_more()
        with servers.current_master().client() as master:
            master.client_pause(3000, all=False)
        servers.switch_over()
        load.wait_for_more()

    assert {answer.status_code for answer in load.answers} <= {202, 503}
    ends = {task_id: service.task(task_id, wait_s=30)["status"] for task_id in load.accepted}
    assert set(ends.values()) == {"succeeded"}
    wait_until(lambda: ends.keys() <= results(service).keys(), timeout_s=30, what="their results are delivered")


def results(service: Service) -> dict[str, Any]:
    return {document["task_id"]: document for document in file_documents(service.data_dir)}
