"""Servers as containers of docker-compose.yml, if there is a docker engine.

That file must have services with the names in `CONTAINER_PORTS`, which publish those ports (Kafka's for clients outside the
containers). Their passwords are in the files that deploy/docker/make-secrets.sh makes.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from dev.servers.addresses import Credentials, addresses
from dev.servers.console import ServicesError, say, warn

CONTAINER_PORTS = {"redis": 6379, "minio": 9000, "kafka": 9092, "mongo": 27017, "rabbitmq": 5672}
_FILE = "docker-compose.yml"
_MAKE_SECRETS = "deploy/docker/make-secrets.sh"
_SECRETS = "secrets"


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
            logs = self._compose("logs", "--no-color", "--tail", "15").stdout
            raise ServicesError(f"docker compose did not start all servers; the ends of their logs:\n{logs}")
        warn(f"{_FILE} has no VersityGW: tests of this second S3 do not run. `make services ARGS=--no-docker` starts one")
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
        """Make the secrets that are missing. Raises ServicesError: one that exists is not usable."""
        made = subprocess.run(["sh", _MAKE_SECRETS, _SECRETS], cwd=self._root, capture_output=True, text=True, check=False)  # noqa: S603, S607
        if made.returncode != 0:
            raise ServicesError(f"{_MAKE_SECRETS} failed: {made.stderr.strip()}")

    def _endpoint(self, name: str) -> str:
        answer = self._compose("port", name, str(CONTAINER_PORTS[name]))
        port = answer.stdout.strip().rpartition(":")[2]
        if answer.returncode != 0 or not port:
            raise ServicesError(f"{name}: {_FILE} does not publish its port {CONTAINER_PORTS[name]}; {answer.stderr.strip()}")
        return f"127.0.0.1:{port}"

    def _credentials(self) -> Credentials:
        """Return the administrators of Redis, MinIO and MongoDB, since tests make databases, buckets and users."""

        def secret(name: str) -> str:
            return (self._root / _SECRETS / name).read_text(encoding="utf-8").strip()

        return Credentials(
            minio_access_key="root",
            minio_secret_key=secret("minio-root-password"),
            amqp_user="inference",
            amqp_password=secret("rabbitmq-password"),
            redis_user="admin",
            redis_password=secret("redis-admin-password"),
            mongo_user="root",
            mongo_password=secret("mongo-root-password"),
        )

    def _compose(self, *words: str, shown: bool = False) -> subprocess.CompletedProcess[str]:
        # RabbitMQ has a profile: `up` would start it by name, but not every version would stop it by name.
        return self._docker("compose", "--profile", "rabbitmq", *words, shown=shown)

    def _docker(self, *words: str, shown: bool = False) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["docker", *words], cwd=self._root, capture_output=not shown, text=True, check=False)  # noqa: S603, S607
