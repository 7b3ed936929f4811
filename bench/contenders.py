"""Contenders of the benchmark: each starts, answers `POST` with an image, and ends all its processes."""

from __future__ import annotations

import atexit
import json
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import urllib3
import yaml

from bench.processes import Processes
from bench.servers import server_processes
from bench.workload import ROOT, WORK, Workload

_START_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Request:
    """Request with a prepared body, in a file for the load generator."""

    url: str
    body: Path
    content_type: str
    #: headers in addition to these
    headers: Mapping[str, str] = field(default_factory=dict)

    def send(self, http: urllib3.PoolManager) -> urllib3.BaseHTTPResponse:
        """Send the request once. Raises urllib3's HTTPError if there is no answer."""
        return http.request(
            "POST", self.url, body=self.body.read_bytes(), headers={"Content-Type": self.content_type, **self.headers}
        )


@dataclass(frozen=True)
class Running:
    """A started contender that answers."""

    request: Request
    #: seconds from its start to its first answer
    start_s: float
    processes: Processes
    #: its answer to the workload's image
    prediction: list[float]


class Contender:
    """One way to serve a model.

    Args:
        name: name in the table; also a key prefix.
        services: addresses of the real servers, if it needs them.
    """

    #: ours, naive, or peer
    kind = "peer"
    path = "/inference"
    images_per_request = 1
    #: numbers of clients that it is measured with; empty: those of the plan
    clients: tuple[int, ...] = ()
    #: names of the real servers that it uses
    servers: tuple[str, ...] = ()
    #: folder with its code
    tree = ROOT
    #: folder of the runs' folders
    runs = WORK / "runs"

    def __init__(self, name: str, services: Mapping[str, str]) -> None:
        self.name = name
        self._services = services

    def commands(self, workload: Workload, port: int, folder: Path) -> list[Sequence[str]]:
        raise NotImplementedError

    def environment(self, workload: Workload, folder: Path) -> dict[str, str]:
        """Environment variables of its processes, in addition to ours."""
        return {}

    def body(self, workload: Workload) -> tuple[bytes, str]:
        """Create the request's body and its content type: a form, as sent by the clients of rohe."""
        image = (workload.image.name, workload.image.read_bytes(), "application/octet-stream")
        return urllib3.encode_multipart_formdata({**self.fields(workload), "image": image}, boundary="XBOUNDARYX")

    def fields(self, workload: Workload) -> dict[str, str]:
        """Fields of the form, in addition to the image."""
        return {"command": "predict"} | ({"metadata": workload.metadata} if workload.metadata else {})

    def batch_size(self, running: Running) -> int | None:
        """Send one more request and return the size of its batch; None if the contender does not report it."""
        return None

    @contextmanager
    def run(self, workload: Workload) -> Iterator[Running]:
        """Start the contender, wait for its answer, and end it after the block. Raises RuntimeError if it does not answer."""
        port = free_port()
        servers = server_processes(self._services, self.servers)
        with self.folder(workload) as folder:
            request = self.request(workload, f"http://127.0.0.1:{port}{self.path}", folder)
            began = time.monotonic()
            with Processes(self.environment(workload, folder), folder / "log", servers, self.tree) as processes:
                for command in self.commands(workload, port, folder):
                    processes.start(command)
                prediction = first_answer(request, processes.log)
                yield Running(request, time.monotonic() - began, processes, prediction)

    @contextmanager
    def folder(self, workload: Workload) -> Iterator[Path]:
        """Create a folder for the files of a run; it is removed at the end of the benchmark, or kept if the block fails.

        It is not removed after the block: for each new file, ext4 skips the places of recently deleted files one by one. After
        ten thousand uploads of the previous run, this took a third of the API's CPU in the next.
        """
        folder = self.runs / f"{self.name}-{workload.name}-{uuid.uuid4().hex[:8]}"
        folder.mkdir(parents=True)
        yield folder
        atexit.register(shutil.rmtree, folder, ignore_errors=True)

    def request(self, workload: Workload, url: str, folder: Path) -> Request:
        body, content_type = self.body(workload)
        file = folder / f"body-{workload.name}"
        file.write_bytes(body)
        return Request(url, file, content_type)


class Ours(Contender):
    """This service: `server.py` with all its parts.

    Args:
        settings: settings in addition to the model's.
        servers: names of the real servers that the settings name.
        tree: folder with the code; default: this one.
    """

    kind = "ours"

    def __init__(
        self,
        name: str,
        services: Mapping[str, str],
        settings: Mapping[str, object],
        *,
        servers: tuple[str, ...] = (),
        tree: Path = ROOT,
    ) -> None:
        super().__init__(name, services)
        self._settings = settings
        self.servers = servers
        self.tree = tree

    def commands(self, workload: Workload, port: int, folder: Path) -> list[Sequence[str]]:
        config = self.write_config(workload, folder)
        return [[sys.executable, "server.py", "--config", str(config), "--port", str(port)]]

    def environment(self, workload: Workload, folder: Path) -> dict[str, str]:
        return dict(self._services)

    def write_config(self, workload: Workload, folder: Path) -> Path:
        document = {"data_dir": str(folder / "data"), "models": [str(workload.folder)], **self._settings}
        document["task_store"] = {"key_prefix": folder.name[-8:]}  # unique, and as short as the default
        config = folder / "config.yaml"
        config.write_text(yaml.safe_dump(document), encoding="utf-8")
        return config

    def batch_size(self, running: Running) -> int | None:
        request = running.request
        with urllib3.PoolManager(retries=False, timeout=60) as http, suppress(urllib3.exceptions.HTTPError):
            answer = request.send(http)
            if answer.status == HTTPStatus.OK:
                task = f"/tasks/{answer.json()['task_id']}"
                return int(http.request("GET", request.url.removesuffix(self.path) + task).json()["batch_size"])
        return None


class Batches(Ours):
    """This service, with many images per request."""

    path = "/inference/batch"
    images_per_request = 32
    clients = (1, 8)  # more clients would only fill the queue up to the deadline

    def batch_size(self, running: Running) -> int | None:
        """Return None: one more request with so many images would be an extra load."""
        return None

    def body(self, workload: Workload) -> tuple[bytes, str]:
        image = (workload.image.name, workload.image.read_bytes(), "application/octet-stream")
        parts: list[tuple[str, str | tuple[str, bytes, str]]] = [("image", image)] * self.images_per_request
        if workload.metadata:
            parts.append(("metadata", workload.metadata))
        return urllib3.encode_multipart_formdata(parts, boundary="XBOUNDARYX")


class Naive(Contender):
    """Flask, MinIO, `task.delay().get()`, and a solo worker that runs one image at a time."""

    kind = "naive"
    servers = ("redis", "minio")

    def commands(self, workload: Workload, port: int, folder: Path) -> list[Sequence[str]]:
        gunicorn = [sys.executable, "-m", "gunicorn", "-k", "gthread", "--threads", "64", "-b", f"127.0.0.1:{port}"]
        worker = [sys.executable, "-m", "celery", "-A", "bench.naive.tasks", "worker", "--pool", "solo", "--loglevel", "WARNING"]
        return [[*gunicorn, "bench.naive.app:app"], worker]

    def environment(self, workload: Workload, folder: Path) -> dict[str, str]:
        redis_url = self._services["REDIS_URL"].rpartition("/")[0] + "/9"
        return dict(self._services) | {"NAIVE_MODEL": str(workload.folder), "NAIVE_REDIS_URL": redis_url}


def free_port() -> int:
    """Return a port of this machine on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def first_answer(request: Request, log: Path) -> list[float]:
    """Return the prediction of the first answer with status 200. Raises RuntimeError with the end of `log` if there is none."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    last = "no answer"
    with urllib3.PoolManager(retries=False, timeout=60) as http:
        while time.monotonic() < deadline:
            try:
                answer = request.send(http)
            except urllib3.exceptions.HTTPError as error:
                last = str(error)
            else:
                if answer.status == HTTPStatus.OK:
                    return [float(value) for value in _prediction(json.loads(answer.data))]
                last = f"{answer.status} {answer.data[:300]!r}"
            time.sleep(0.1)
    end = log.read_text(encoding="utf-8", errors="replace")[-3000:]
    raise RuntimeError(f"{request.url} does not answer ({last}); the end of {log}:\n{end}")


def _prediction(document: object) -> list[float]:
    match document:
        case {"response": {"prediction": [*values]}} | {"result": {"prediction": [*values]}}:
            return values
        case {"items": [first, *_]}:
            return _prediction(first)
        case {"outputs": [{"data": [str(text), *_]}]}:
            return _prediction(json.loads(text))
        case [first, *_]:
            return _prediction(first)
    raise RuntimeError(f"an answer without a prediction: {str(document)[:300]}")
