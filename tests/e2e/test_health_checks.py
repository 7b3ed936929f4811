"""The health checks of docker-compose.yml, run without containers on what they are to watch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.redis_nodes import HOST, PASSWORD, RedisNode, one_redis
from support.service import ROOT, Service, free_port

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
class TestRedis:
    def is_healthy(self, node: RedisNode, password: str) -> bool:
        here = {"redis-cli ping": f"redis-cli -h {HOST} -p {node.port} ping"}
        return is_healthy("redis", {"REDISCLI_AUTH": password}, here=here)

    def test_with_a_password(self, tmp_path: Path) -> None:
        with one_redis(tmp_path) as node:
            assert self.is_healthy(node, PASSWORD)
            assert not self.is_healthy(node, "")
            node.kill()
            assert not self.is_healthy(node, PASSWORD)

    def test_without_one(self, tmp_path: Path) -> None:
        with one_redis(tmp_path) as node:
            with node.client() as client:
                client.config_set("requirepass", "")
            assert self.is_healthy(node, "")
