"""The health checks of docker-compose.yml, run without containers on what they are to watch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import redis
import requests
import yaml
from support.redis_nodes import HOST, RedisNode
from support.service import ROOT, Service, free_port
from support.waiting import until

from inference.runtime.redis import connect

pytestmark = pytest.mark.process

SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]


def ports() -> dict[str, str]:
    """Choose free ports for the worker and the relay, which the checks ask; by variable."""
    return {"INFERENCE_MONITORING__WORKER_PORT": str(free_port()), "INFERENCE_MONITORING__RELAY_PORT": str(free_port())}


def is_healthy(name: str, environment: dict[str, str], *, here: dict[str, str] | None = None) -> bool:
    """`here`: texts of the check, and what is in their place without a container."""
    kind, *command = SERVICES[name]["healthcheck"]["test"]
    if kind == "CMD-SHELL":
        command = ["sh", "-c", *command]
    for there, text in (here or {}).items():
        assert any(there in word for word in command)
        command = [word.replace(there, text) for word in command]
    command = [word.replace("$$", "$") for word in command]
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(command, cwd=ROOT, env=environment | {"PATH": programs}, capture_output=True, timeout=60, check=False)
    return done.returncode == 0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose worker and relay listen for probes."""
    variables = {"INFERENCE_MONITORING__HOST": "127.0.0.1", **ports()}
    service = Service(tmp_path_factory.mktemp("probed"), {"models": ["models/digits"], "sinks": ["jsonl"]}, variables=variables)
    try:
        service.start()
        yield service
    finally:
        service.end()


def test_the_api(service: Service) -> None:
    here = {"INFERENCE_API__HOST": "127.0.0.1"}
    assert is_healthy("api", service.environment | here | {"INFERENCE_API__PORT": str(service.port)})
    assert not is_healthy("api", service.environment | here | {"INFERENCE_API__PORT": str(free_port())})


@pytest.mark.parametrize("part", ["worker", "relay"])
def test_the_worker_and_the_relay(service: Service, part: str) -> None:
    assert is_healthy(part, service.environment)
    assert not is_healthy(part, service.environment | ports())  # nobody listens there


@pytest.mark.parametrize("part", ["worker", "relay"])
def test_their_metrics_and_probes(service: Service, part: str) -> None:
    url = f"http://127.0.0.1:{service.environment[f'INFERENCE_MONITORING__{part.upper()}_PORT']}"
    assert "inference_build_info" in requests.get(f"{url}/metrics", timeout=30).text

    def reads_the_store() -> bool:
        return 'inference_store_up{store="task_store"} 1.0' in requests.get(f"{url}/metrics", timeout=30).text

    def is_ok(probe_url: str) -> bool:
        return requests.get(probe_url, timeout=30).status_code == 200

    until(reads_the_store, "figures of the whole service")  # a busy machine may take longer than it waits for a store
    for probe in ("live", "ready"):
        until(partial(is_ok, f"{url}/health/{probe}"), probe)
        assert requests.get(f"{url}/health/{probe}", timeout=30).json()["status"] == probe


@pytest.mark.services  # `make services` installs redis-cli
def test_redis_with_the_users_of_its_secrets(tmp_path: Path) -> None:
    subprocess.run(["sh", "deploy/docker/make-secrets.sh", str(tmp_path / "secrets")], cwd=ROOT, check=True)
    options = {"requirepass": "", "save": "", "aclfile": str(tmp_path / "secrets/redis-users.acl")}
    node = RedisNode(tmp_path / "redis", options)
    here = {"redis-cli ping": f"redis-cli -h {HOST} -p {node.port} ping"}
    try:
        node.start()
        assert is_healthy("redis", {}, here=here)
        with node.client() as stranger, pytest.raises(redis.exceptions.NoPermissionError):
            stranger.get("inference:seq")
        login = (tmp_path / "secrets/redis-url").read_text("utf-8").strip().replace("redis:6379", f"{HOST}:{node.port}")
        with connect(login) as client:
            assert client.get("inference:seq") is None
    finally:
        node.kill()
    assert not is_healthy("redis", {}, here=here)
