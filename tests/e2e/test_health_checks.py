"""The health checks of docker-compose.yml, run without containers on what they are to watch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import redis
import yaml
from support.redis_nodes import HOST, RedisNode
from support.service import ROOT, Service, free_port

from inference.runtime.redis import connect

pytestmark = pytest.mark.process

SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]


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


def test_the_api(service: Service) -> None:
    assert is_healthy("api", service.environment, here={"30005": str(service.port)})
    assert not is_healthy("api", service.environment, here={"30005": str(free_port())})


def test_a_worker(service: Service) -> None:
    assert is_healthy("worker", service.environment | {"HOSTNAME": socket.gethostname()})
    assert not is_healthy("worker", service.environment | {"HOSTNAME": "another-host"})


def test_the_relay(service: Service, tmp_path: Path) -> None:
    assert is_healthy("relay", service.environment)
    elsewhere = tmp_path / "config.yaml"
    elsewhere.write_text(f"{{models: [models/digits], data_dir: {tmp_path}}}", encoding="utf-8")
    assert not is_healthy("relay", service.environment | {"INFERENCE_CONFIG": str(elsewhere)})


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
