"""Failures between the object store and the task store: each upload is of a task, and each answer is true."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import requests
from support.client import wait_until
from support.digits import METADATA
from support.parts import Parts
from support.tcp_proxy import TcpProxy
from support.tenant import Tenant
from support.unsupervised import IMAGE, Load, picture, pids, running_parts, succeeds

from inference.runtime.redis import embedded_socket
from inference.task_store.redis_store import RedisTaskStore, StorePolicy

pytestmark = [pytest.mark.process, pytest.mark.services, pytest.mark.timeout(600)]

CUTS = 6
#: Longer than the client of the task store tries, and shorter than the API does.
CUT_S = 1.2
#: No request is under way any more when orphans are deleted.
ORPHAN_AFTER_S = 2


LARGE = picture(400)


class World:
    """API, worker and relay, and the content of their two stores.

    Args:
        client: of the task store.
    """

    def __init__(self, parts: Parts, tenant: Tenant, client: redis.Redis) -> None:
        self.parts = parts
        self.redis = client
        self._tenant = tenant
        self._store = RedisTaskStore(client, StorePolicy(tenant.name))

    def uploads(self) -> list[str]:
        """The tasks that the uploads are of."""
        return [key.rpartition("/")[2] for key in self._tenant.uploads()]

    def orphans(self) -> list[str]:
        """... that have no record."""
        return self._store.find_unknown(self._store.get_tag(), self.uploads())

    def wait_for_no_orphans(self) -> None:
        """Nothing but the service sees to it: the relay would wait for longer."""
        wait_until(lambda: not self.orphans(), timeout_s=30, what="each upload is of a task")

    def delete_orphans(self) -> None:
        """Delete orphans like the relay, but sooner than its setting may say."""
        self._tenant.delete_orphans(self._store, ORPHAN_AFTER_S)

    def recorded(self) -> set[str]:
        """The tasks that have a record."""
        keys: list[bytes] = list(self.redis.scan_iter(f"{self._tenant.name}:task:*", count=1000))
        return {key.decode().rpartition(":")[2] for key in keys}


def settings(tenant: Tenant, **more: Any) -> dict[str, Any]:
    env = tenant.env
    return {
        "models": json.loads(tenant.variables["INFERENCE_MODELS"]),
        "task_store": {"key_prefix": tenant.name, "lease_s": 2, "requeue_lost_after_s": 1},
        "uploads": {"store": "s3", "bucket": tenant.name},
        "s3": {
            "endpoint": env["MINIO_ENDPOINT"],
            "access_key": env["MINIO_ACCESS_KEY"],
            "secret_key": env["MINIO_SECRET_KEY"],
        },
        "limits": {"max_queue_depth": 200},
    } | more


@pytest.fixture
def tenant(services_env: dict[str, str], tmp_path: Path) -> Iterator[Tenant]:
    tenant = Tenant(services_env, tmp_path)
    yield tenant
    tenant.leave()


@pytest.fixture
def world(tenant: Tenant, tmp_path: Path) -> Iterator[World]:
    """World with a task store of its own."""
    client = redis.Redis(unix_socket_path=str(embedded_socket(tmp_path / "data")))
    with client, running_parts(tmp_path, settings(tenant), with_broker=True) as parts:
        yield World(parts, tenant, client)


@pytest.fixture
def task_store(tenant: Tenant) -> Iterator[TcpProxy]:
    """A way to a real server that can be cut."""
    proxy = TcpProxy(tenant.env["REDIS_URL"].removeprefix("redis://").partition("/")[0])
    yield proxy
    proxy.cut()


@pytest.fixture
def cut_world(tenant: Tenant, task_store: TcpProxy, tmp_path: Path) -> Iterator[World]:
    database = tenant.env["REDIS_URL"].rpartition("/")[2]
    broker = {"url": f"redis://{task_store.address}/{database}"}
    with running_parts(tmp_path, settings(tenant, broker=broker)) as parts:
        yield World(parts, tenant, tenant.redis)


def post_batch(parts: Parts, *images: bytes, **fields: str) -> requests.Response:
    files = [("image", ("image", image)) for image in images]
    return requests.post(f"{parts.url}/inference/batch", files=files, data=fields, timeout=90)


def test_connections_that_are_cut_while_tasks_are_accepted(cut_world: World, task_store: TcpProxy) -> None:
    parts = cut_world.parts
    assert succeeds(parts)
    before, earlier, load = pids(parts), cut_world.recorded(), Load(parts)
    with load.run():
        for _ in range(CUTS):
            time.sleep(1)
            task_store.cut()
            time.sleep(CUT_S)
            task_store.mend()
        time.sleep(2)
    assert load.statuses <= {202, 503}
    assert len(load.accepted) > CUTS
    assert {parts.task(task_id, wait_s=30)["status"] for task_id in load.accepted} == {"succeeded"}
    assert cut_world.recorded() - earlier <= {*load.accepted, *load.named}, "what an answer calls refused was not accepted"
    cut_world.delete_orphans()
    assert pids(parts) == before


def test_a_task_store_without_memory(world: World) -> None:
    """A refused request leaves no image, from the answer on."""
    parts = world.parts
    assert succeeds(parts)
    before = world.recorded()
    world.redis.config_set("maxmemory", 1)
    answers = [parts.post(IMAGE, metadata=METADATA, mode="async") for _ in range(10)]
    answers += [parts.post(LARGE, mode="async") for _ in range(10)]
    answers += [post_batch(parts, LARGE, picture(8), mode="async") for _ in range(5)]
    world.redis.config_set("maxmemory", 0)
    assert {answer.status_code for answer in answers} == {503}
    assert not any({"task_id", "batch_id"} & answer.json().keys() for answer in answers)
    world.wait_for_no_orphans()
    assert world.recorded() == before == set(world.uploads())
    wait_until(lambda: succeeds(parts), timeout_s=60, what="the API looks at the memory again")


def test_an_api_that_is_killed_between_the_two(world: World) -> None:
    parts = world.parts
    assert succeeds(parts)
    parts.stop("api")
    sends: list[Callable[[], object]] = [lambda: parts.post(LARGE), lambda: post_batch(parts, LARGE, LARGE)]
    for number, send in enumerate(sends):
        command = ["-m", "gevent.monkey", "tests/support/dying_api.py", str(parts.port)]
        parts.start(f"dying-{number}", *command, PYTHONPATH=".")
        wait_until(parts.is_ready, timeout_s=60, what="the API is ready")
        with pytest.raises(requests.ConnectionError):
            send()
        parts.wait_killed(f"dying-{number}")
    assert len(world.uploads()) == 4
    world.delete_orphans()
    assert len(world.uploads()) == 1


def test_requests_that_are_refused(world: World) -> None:
    """There is no room for them, or their key was used with other content."""
    parts = world.parts
    assert succeeds(parts)
    parts.stop("worker")
    headers = {"Idempotency-Key": "key"}
    assert parts.post(IMAGE, metadata=METADATA, mode="async", headers=headers).status_code == requests.codes.accepted
    assert parts.post(LARGE, mode="async", headers=headers).status_code == requests.codes.conflict
    assert post_batch(parts, *[picture(8)] * 199, mode="async").status_code == requests.codes.accepted
    for answer in (parts.post(LARGE, mode="async"), post_batch(parts, LARGE, LARGE, mode="async")):
        assert answer.status_code == requests.codes.too_many_requests, answer.text
    world.wait_for_no_orphans()
