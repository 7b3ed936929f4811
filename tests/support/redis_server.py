"""A Redis server of one test alone, which may be stopped, started again or made to refuse."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from inference.launcher import embedded_broker
from inference.runtime.redis import embedded_socket


class RedisServer:
    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{embedded_socket(data_dir)}?db=0"

    def start(self) -> None:
        self._process = subprocess.Popen(embedded_broker.command(self._data_dir))
        assert embedded_broker.wait_for(self._data_dir, up=True, timeout_s=60), embedded_broker.log_tail(self._data_dir)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            self._process = None


@contextmanager
def own_redis_server() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="inf-", dir="/tmp") as folder:  # short: a socket's path is limited
        server = RedisServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()


def client_of_nobody(folder: Path) -> redis.Redis:
    """A client of a socket that nobody listens on; it gives up at once."""
    return redis.Redis(unix_socket_path=str(folder / "nobody.sock"), retry=Retry(NoBackoff(), 0))


def impatient_client(server: RedisServer) -> redis.Redis:
    """A client that gives up at once."""
    return redis.Redis.from_url(server.url, retry=Retry(NoBackoff(), 0))
