"""A client of the running service."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
from support.waiting import until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], Any], *, timeout_s: float, what: str) -> Any:
    """The first true answer of `condition`; an assertion that names `what` when the time is over."""
    return until(condition, what, timeout_s=timeout_s)


class Client:
    """Calls the API on a port of this machine."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def is_ready(self) -> bool:
        with contextlib.suppress(requests.ConnectionError, requests.Timeout):
            return requests.get(f"{self.url}/health/ready", timeout=5).status_code == requests.codes.ok
        return False

    def post(self, image: Path | bytes, *, headers: dict[str, str] | None = None, **fields: str) -> requests.Response:
        data = image if isinstance(image, bytes) else image.read_bytes()
        name = "image" if isinstance(image, bytes) else image.name
        return requests.post(f"{self.url}/inference", files={"image": (name, data)}, data=fields, headers=headers, timeout=90)

    def submit(self, image: Path | bytes, **fields: str) -> str:
        """Asynchronously; gives the task id."""
        response = self.post(image, mode="async", **fields)
        assert response.status_code == requests.codes.accepted, response.text
        return str(response.json()["task_id"])

    def post_with_short_deadline(self, image: Path | bytes, **fields: Any) -> requests.Response:
        """Send with the shortest deadline that is accepted: the longer tasks take, the longer it has to be."""
        for deadline_s in (1, 2, 4, 8, 16, 32):
            response = self.post(image, deadline_s=str(deadline_s), **fields)
            if response.status_code != requests.codes.too_many_requests:
                break
        return response

    def task(self, task_id: str, *, wait_s: float = 0) -> dict[str, Any]:
        response = requests.get(f"{self.url}/tasks/{task_id}", params={"wait": wait_s}, timeout=90)
        assert response.status_code == requests.codes.ok, response.text
        document: dict[str, Any] = response.json()
        return document
