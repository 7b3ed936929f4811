"""Servers go away and come back while no supervisor is there: every part goes on as the process that it was."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from support.client import wait_until
from support.parts import Parts
from support.tcp_proxy import TcpProxy, kafka_proxy
from support.tenant import Tenant
from support.unsupervised import Load, pids, running_parts, succeeds

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]

REDIS_RESTARTS = 6
RABBITMQ_OUTAGE_S = 5
OUTAGE_S = 5


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


@pytest.mark.services
def test_rabbitmq_goes_away_without_load(on_rabbitmq: Parts, rabbitmq: TcpProxy) -> None:
    before = pids(on_rabbitmq)
    assert succeeds(on_rabbitmq)
    rabbitmq.cut()
    answers, until_s = [], time.monotonic() + RABBITMQ_OUTAGE_S
    while time.monotonic() < until_s:
        answers.append(requests.get(f"{on_rabbitmq.url}/health/ready", timeout=30))
        assert pids(on_rabbitmq) == before
        time.sleep(0.3)
    assert {answer.status_code for answer in answers} <= {200, 503}, answers[-1].text
    assert answers[-1].status_code == requests.codes.unavailable
    assert answers[-1].json()["checks"]["broker"] != "ok"
    rabbitmq.mend()
    wait_until(lambda: succeeds(on_rabbitmq), timeout_s=60, what="a request is served again")
    assert pids(on_rabbitmq) == before


class Servers:
    """Ways to an object store and two sinks that can be cut, and the service on them."""

    def __init__(self, tenant: Tenant) -> None:
        env = tenant.env
        self.tenant = tenant
        self.proxies = {
            "minio": TcpProxy(env["MINIO_ENDPOINT"].removeprefix("http://")),
            "mongodb": TcpProxy(env["MONGODB_URL"].removeprefix("mongodb://").rstrip("/")),
            "kafka": kafka_proxy(env["KAFKA_BOOTSTRAP"]),
        }
        addresses = {name: proxy.address for name, proxy in self.proxies.items()}
        self.settings: dict[str, Any] = {
            "models": json.loads(tenant.variables["INFERENCE_MODELS"]),
            "broker": {"url": env["REDIS_URL"]},
            "task_store": {"key_prefix": tenant.name, "lease_s": 2, "requeue_lost_after_s": 1},
            "uploads": {"store": "s3", "bucket": tenant.name, "retention_hours": 168},
            "s3": {
                "endpoint": addresses["minio"],
                "access_key": env["MINIO_ACCESS_KEY"],
                "secret_key": env["MINIO_SECRET_KEY"],
            },
            "sinks": ["mongodb", "kafka"],
            "mongodb": {
                "url": f"mongodb://{addresses['mongodb']}/",
                "database": tenant.variables["INFERENCE_MONGODB__DATABASE"],
                "collection": tenant.name,
                "timeout_s": 5,
            },
            "kafka": {"bootstrap_servers": addresses["kafka"], "topic": tenant.name, "timeout_s": 5},
            "relay": {"reclaim_after_s": 2, "max_backoff_s": 1},
        }


@pytest.fixture
def servers(services_env: dict[str, str], tmp_path: Path) -> Iterator[Servers]:
    tenant = Tenant(services_env, tmp_path)
    servers = Servers(tenant)
    yield servers
    for proxy in servers.proxies.values():
        proxy.cut()
    tenant.leave()
    tenant.leave_sinks()


@pytest.mark.services
def test_object_store_and_sinks_go_away_one_after_the_other(servers: Servers, tmp_path: Path) -> None:
    """Under load: no part ends, what was accepted ends well, and its result comes to each sink."""
    with running_parts(tmp_path, servers.settings) as parts:
        assert succeeds(parts)
        before, load = pids(parts), Load(parts)
        with load.run():
            for proxy in servers.proxies.values():
                time.sleep(1)
                proxy.cut()
                time.sleep(OUTAGE_S)
                assert pids(parts) == before
                proxy.mend()
                wait_until(lambda: succeeds(parts), timeout_s=60, what="a request is served again")
        assert load.statuses <= {202, 503}
        assert {parts.task(task_id, wait_s=30)["status"] for task_id in load.accepted} == {"succeeded"}
        servers.tenant.wait_delivered("mongodb", "kafka")
        assert {document["_id"] for document in servers.tenant.documents()} >= set(load.accepted)
        delivered = {json.loads(record.value)["task_id"] for record in servers.tenant.records()}
        assert delivered >= set(load.accepted)
        assert pids(parts) == before
