"""One API process, `server.py api`, and raw connections to it."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, Self

import orjson
import psutil
import yaml
from support.client import free_port, wait_until
from support.contract import PROBLEM, check_problem
from support.service import ROOT


def get(head: bytes = b"", *, target: bytes = b"/health/live", method: bytes = b"GET", version: bytes = b"HTTP/1.1") -> bytes:
    return b"%s %s %s\r\nHost: localhost\r\n%s\r\n" % (method, target, version, head)


GET = get()
LAST_GET = get(b"Connection: close\r\n")


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = orjson.loads(self.body)
        return document


class Connection:
    """A raw socket to the API, and its answers."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), timeout=20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, method: str = "GET") -> Answer:
        response = HTTPResponse(self.socket, method=method)
        response.begin()
        with response:
            answer = Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
        if answer.body and answer.headers.get("content-type") == PROBLEM:
            check_problem(answer.body)
        return answer

    def ask(self, data: bytes, method: str = "GET") -> Answer:
        self.send(data)
        return self.answer(method)

    def is_closed(self) -> bool:
        """The server has closed it; else it waits."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True


class ApiProcess:
    """`server.py api` on a port of its own, on the shared Redis."""

    def __init__(
        self,
        folder: Path,
        redis_url: str,
        *,
        limit: int | None = None,
        host: str = "127.0.0.1",
        others: dict[str, Any] | None = None,
        **api: Any,
    ) -> None:
        """`api` are settings of this section, `others` of other sections."""
        self.host, self.port = host, free_port()
        self._log = folder / "api.log"
        config = folder / "config.yaml"
        api = {"shutdown_delay_s": 0} | api
        settings = {"data_dir": str(folder), "models": ["models/digits"], "broker": {"url": redis_url}, "api": api, "sinks": []}
        config.write_text(yaml.safe_dump(settings | (others or {})), encoding="utf-8")
        command = [sys.executable, "server.py", "api", "--config", str(config), "--host", host, "--port", str(self.port)]
        if limit is not None:
            command = ["sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh", *command]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def worker(self) -> psutil.Process:
        (worker,) = psutil.Process(self.process.pid).children()
        return worker

    def connect(self, host: str | None = None) -> Connection:
        return Connection(host or self.host, self.port)

    def wait(self) -> ApiProcess:
        def is_live() -> bool:
            assert self.process.poll() is None, self.log
            with contextlib.suppress(OSError), self.connect() as connection:
                return connection.ask(LAST_GET).status == 200
            return False

        wait_until(is_live, timeout_s=60, what="the API answers")
        return self

    def stop(self) -> None:
        """Send SIGTERM, and wait a minute at most until it has ended well."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.log

    def end(self) -> None:
        if self.process.poll() is None:
            self.stop()
