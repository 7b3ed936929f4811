"""The servers as containers of docker-compose.yml, where a docker engine is there.

What is asked of that file: services named as in `CONTAINER_PORTS`, which publish those ports (Kafka's for clients outside the
containers), with MINIO_ROOT_USER, MINIO_ROOT_PASSWORD, RABBITMQ_DEFAULT_USER and RABBITMQ_DEFAULT_PASS in their environment where
they differ from the images' own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from deploy.services.addresses import Credentials, addresses
from deploy.services.console import ServicesError, say

CONTAINER_PORTS = {"redis": 6379, "minio": 9000, "kafka": 9092, "mongo": 27017, "rabbitmq": 5672}
_FILE = "docker-compose.yml"


class ComposeServers:
    """The same as `LocalServers`, in containers."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def usable(self) -> bool:
        """Whether there is an engine that answers, the compose command and the file."""
        if shutil.which("docker") is None or not (self._root / _FILE).exists():
            return False
        return all(self._docker(*words).returncode == 0 for words in (("info",), ("compose", "version")))

    def start(self, timeout_s: float) -> dict[str, str]:
        say(f"docker: starting {', '.join(CONTAINER_PORTS)}")
        up = ("compose", "up", "-d", "--wait", "--wait-timeout", f"{timeout_s:.0f}", *CONTAINER_PORTS)
        if self._docker(*up, shown=True).returncode != 0:
            logs = self._docker("compose", "logs", "--no-color", "--tail", "15", *CONTAINER_PORTS).stdout
            raise ServicesError(f"docker compose did not bring all up; the ends of their logs:\n{logs}")
        endpoints = {name: self._endpoint(name) for name in CONTAINER_PORTS}
        return addresses(endpoints, self._credentials())

    def stop(self) -> None:
        if self._docker("compose", "stop", *CONTAINER_PORTS, shown=True).returncode != 0:
            raise ServicesError("docker compose did not stop all")

    def status(self) -> bool:
        running = self._docker("compose", "ps", "--services", "--status", "running").stdout.split()
        say(f"{'name':<10}{'state':<8}{'pid':<9}address")
        for name in CONTAINER_PORTS:
            is_up = name in running
            say(f"{name:<10}{'up' if is_up else 'down':<8}{'-':<9}{self._endpoint(name) if is_up else '-'}")
        return set(CONTAINER_PORTS) <= set(running)

    def _endpoint(self, name: str) -> str:
        answer = self._docker("compose", "port", name, str(CONTAINER_PORTS[name]))
        port = answer.stdout.strip().rpartition(":")[2]
        if answer.returncode != 0 or not port:
            raise ServicesError(f"{name}: {_FILE} does not publish its port {CONTAINER_PORTS[name]}; {answer.stderr.strip()}")
        return f"127.0.0.1:{port}"

    def _credentials(self) -> Credentials:
        services: dict[str, Any] = json.loads(self._docker("compose", "--profile", "*", "config", "--format", "json").stdout)[
            "services"
        ]
        minio = services["minio"].get("environment") or {}
        rabbitmq = services["rabbitmq"].get("environment") or {}
        return Credentials(
            minio.get("MINIO_ROOT_USER", "minioadmin"),
            minio.get("MINIO_ROOT_PASSWORD", "minioadmin"),
            rabbitmq.get("RABBITMQ_DEFAULT_USER", "guest"),
            rabbitmq.get("RABBITMQ_DEFAULT_PASS", "guest"),
        )

    def _docker(self, *words: str, shown: bool = False) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["docker", *words], cwd=self._root, capture_output=not shown, text=True, check=False)  # noqa: S603, S607
