"""Servers as containers of docker-compose.yml, if there is a docker engine.

That file must have services with the names in `CONTAINER_PORTS`, which publish those ports (Kafka's for clients outside the
containers), with their users and passwords in the environment variables that `_credentials` reads.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import subprocess
from pathlib import Path

from dev.servers.addresses import Credentials, addresses, write_private
from dev.servers.console import ServicesError, say

CONTAINER_PORTS = {"redis": 6379, "minio": 9000, "kafka": 9092, "mongo": 27017, "rabbitmq": 5672}
_FILE = "docker-compose.yml"
_EXAMPLE_SECRET = re.compile(r"^(\w+=)change-me.*$", re.MULTILINE)


class ComposeServers:
    """Servers in containers, with the interface of `LocalServers`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def usable(self) -> bool:
        """Whether there are an engine that answers, the compose command and the file."""
        if shutil.which("docker") is None or not (self._root / _FILE).exists():
            return False
        return all(self._docker(*words).returncode == 0 for words in (("info",), ("compose", "version")))

    def start(self, timeout_s: float) -> dict[str, str]:
        self._make_secrets()
        say(f"docker: starting {', '.join(CONTAINER_PORTS)}")
        up = ("up", "-d", "--wait", "--wait-timeout", f"{timeout_s:.0f}", *CONTAINER_PORTS)
        if self._compose(*up, shown=True).returncode != 0:
            # The logs of all: the cause may be in another container, such as check-secrets.
            logs = self._compose("logs", "--no-color", "--tail", "15").stdout
            raise ServicesError(f"docker compose did not start all servers; the ends of their logs:\n{logs}")
        endpoints = {name: self._endpoint(name) for name in CONTAINER_PORTS}
        return addresses(endpoints, self._credentials())

    def stop(self) -> None:
        if self._compose("stop", *CONTAINER_PORTS, shown=True).returncode != 0:
            raise ServicesError("docker compose did not stop all servers")

    def status(self) -> bool:
        lines = self._compose("ps", "--format", "{{.Service}} {{.Health}}").stdout.splitlines()
        healths = {name: health for name, _, health in (line.partition(" ") for line in lines)}
        say(f"{'name':<10}{'state':<8}{'pid':<9}address")
        for name in CONTAINER_PORTS:
            state = "down" if name not in healths else "up" if healths[name] == "healthy" else "silent"
            say(f"{name:<10}{state:<8}{'-':<9}{'-' if state == 'down' else self._endpoint(name)}")
        return all(healths.get(name) == "healthy" for name in CONTAINER_PORTS)

    def _make_secrets(self) -> None:
        """Create a `.env` with random secrets if it is missing: the servers do not start with the secrets of the example."""
        path = self._root / ".env"
        if path.exists():
            return
        example = (self._root / ".env.example").read_text(encoding="utf-8")
        write_private(path, _EXAMPLE_SECRET.sub(lambda found: found[1] + secrets.token_hex(20), example))
        say("docker: created .env with random secrets")

    def _endpoint(self, name: str) -> str:
        answer = self._compose("port", name, str(CONTAINER_PORTS[name]))
        port = answer.stdout.strip().rpartition(":")[2]
        if answer.returncode != 0 or not port:
            raise ServicesError(f"{name}: {_FILE} does not publish its port {CONTAINER_PORTS[name]}; {answer.stderr.strip()}")
        return f"127.0.0.1:{port}"

    def _credentials(self) -> Credentials:
        services = json.loads(self._compose("config", "--format", "json").stdout)["services"]
        environments = {name: services[name].get("environment") or {} for name in CONTAINER_PORTS}

        def given(server: str, variable: str, default: str = "") -> str:
            return environments[server].get(variable) or default

        return Credentials(
            minio_access_key=given("minio", "MINIO_ROOT_USER", "minioadmin"),
            minio_secret_key=given("minio", "MINIO_ROOT_PASSWORD", "minioadmin"),
            amqp_user=given("rabbitmq", "RABBITMQ_DEFAULT_USER", "guest"),
            amqp_password=given("rabbitmq", "RABBITMQ_DEFAULT_PASS", "guest"),
            redis_password=given("redis", "REDISCLI_AUTH"),
            mongo_user=given("mongo", "MONGO_INITDB_ROOT_USERNAME"),
            mongo_password=given("mongo", "MONGO_INITDB_ROOT_PASSWORD"),
        )

    def _compose(self, *words: str, shown: bool = False) -> subprocess.CompletedProcess[str]:
        # RabbitMQ has a profile: `up` would start it by name, but not every version would stop it by name.
        return self._docker("compose", "--profile", "rabbitmq", *words, shown=shown)

    def _docker(self, *words: str, shown: bool = False) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["docker", *words], cwd=self._root, capture_output=not shown, text=True, check=False)  # noqa: S603, S607
