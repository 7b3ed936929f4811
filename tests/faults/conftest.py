"""Services whose leases are short, so that what a dead process held is soon another's; with a supervisor and without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.contract import checked_requests
from support.parts import Parts
from support.service import Service
from support.tcp_proxy import TcpProxy
from support.tenant import Tenant
from support.unsupervised import SHORT_LEASES, running_parts


@pytest.fixture(scope="session", autouse=True)
def contract() -> Iterator[None]:
    """Compare every answer with the OpenAPI document."""
    with checked_requests():
        yield


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("faults"), SHORT_LEASES)
    try:
        running.start()
        yield running
    finally:
        running.end()


@pytest.fixture
def on_redis(tmp_path: Path) -> Iterator[Parts]:
    with running_parts(tmp_path, SHORT_LEASES, with_broker=True) as parts:
        yield parts


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
    settings = SHORT_LEASES | {
        "models": json.loads(tenant.variables["INFERENCE_MODELS"]),
        "broker": {"url": services_env["AMQP_URL"].replace(server, rabbitmq.address)},
        "task_store": SHORT_LEASES["task_store"] | {"url": tenant.env["REDIS_URL"], "key_prefix": tenant.name},
    }
    try:
        with running_parts(tmp_path, settings) as parts:
            yield parts
    finally:
        tenant.leave()
