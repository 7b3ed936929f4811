"""What is measured: each contender starts, answers `POST` with an image, and ends without leaving a process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import urllib3
import yaml

from bench.workload import ROOT, WORK, Workload

_START_TIMEOUT_S = 120.0
_MARK = "INFERENCE_BENCH_RUN"


@dataclass(frozen=True)
class Request:
    """A ready body, in a file for the load generator."""

    url: str
    body: Path
    content_type: str


@dataclass
class Running:
    """A contender that answers."""

    request: Request
    start_s: float
    #: in the environment of every process of it
    mark: str
    prediction: list[float] = field(default_factory=list)

    def processes(self) -> list[psutil.Process]:
        return _marked(self.mark)

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far, by what a process is."""
        used: dict[str, float] = {}
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                role = _role(process)
                used[role] = used.get(role, 0.0) + times.user + times.system
        return used

    def memory_mb(self) -> dict[str, float]:
        """Resident memory of the largest process, by what a process is."""
        used: dict[str, float] = {}
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                role = _role(process)
                used[role] = max(used.get(role, 0.0), process.memory_info().rss / 1e6)
        return used


class Contender:
    """One way to serve a model.

    Args:
        name: as the table shows it.
        services: addresses of the real servers, where it needs them.
    """

    path = "/inference"
    images_per_request = 1

    def __init__(self, name: str, services: Mapping[str, str]) -> None:
        self.name = name
        self._services = services

    def commands(self, workload: Workload, port: int, folder: Path) -> list[Sequence[str]]:
        raise NotImplementedError

    def environment(self, workload: Workload, folder: Path) -> dict[str, str]:
        """What its processes get beside ours."""
        return {}

    def body(self, workload: Workload) -> tuple[bytes, str]:
        """The request's body and its content type: a form, as the seed's clients send it."""
        fields = {"command": "predict", "metadata": workload.metadata} if workload.metadata else {"command": "predict"}
        image = (workload.image.name, workload.image.read_bytes(), "application/octet-stream")
        body, content_type = urllib3.encode_multipart_formdata(fields | {"image": image}, boundary="XBOUNDARYX")
        return body, content_type

    @contextmanager
    def run(self, workload: Workload) -> Iterator[Running]:
        """Started, checked and warm; ended with the block."""
        mark, port = uuid.uuid4().hex, _free_port()
        folder = WORK / "runs" / f"{self.name}-{workload.name}-{mark[:8]}"
        folder.mkdir(parents=True)
        body, content_type = self.body(workload)
        (folder / "body").write_bytes(body)
        request = Request(f"http://127.0.0.1:{port}{self.path}", folder / "body", content_type)
        environment = os.environ | {_MARK: mark, "PYTHONPATH": str(ROOT)} | self.environment(workload, folder)
        began = time.monotonic()
        with (folder / "log").open("wb") as log:
            for command in self.commands(workload, port, folder):
                subprocess.Popen(  # noqa: S603 the contenders' own commands
                    command, cwd=ROOT, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
                )
            try:
                prediction = _first_answer(request, folder / "log")
                yield Running(request, time.monotonic() - began, mark, prediction)
            finally:
                _end(mark)


class Ours(Contender):
    """This service: `server.py` with all its parts.

    Args:
        settings: beside the model's.
    """

    def __init__(self, name: str, services: Mapping[str, str], settings: dict[str, object]) -> None:
        super().__init__(name, services)
        self._settings = settings

    def commands(self, workload: Workload, port: int, folder: Path) -> list[Sequence[str]]:
        document = {"data_dir": str(folder / "data"), "models": [str(workload.folder)]} | self._settings
        document["task_store"] = {"key_prefix": folder.name}
        config = folder / "config.yaml"
        config.write_text(yaml.safe_dump(document), encoding="utf-8")
        return [[sys.executable, "server.py", "--config", str(config), "--port", str(port)]]

    def environment(self, workload: Workload, folder: Path) -> dict[str, str]:
        return dict(self._services)


class Batches(Ours):
    """This service, with many images in one request."""

    path = "/inference/batch"
    images_per_request = 32

    def body(self, workload: Workload) -> tuple[bytes, str]:
        image = (workload.image.name, workload.image.read_bytes(), "application/octet-stream")
        parts: list[tuple[str, str | tuple[str, bytes, str]]] = [("image", image)] * self.images_per_request
        if workload.metadata:
            parts.append(("metadata", workload.metadata))
        return urllib3.encode_multipart_formdata(parts, boundary="XBOUNDARYX")


class Naive(Contender):
    """Flask, MinIO, `task.delay().get()`, a solo worker that runs one image at a time."""

    def commands(self, workload: Workload, port: int, folder: Path) -> list[Sequence[str]]:
        gunicorn = [sys.executable, "-m", "gunicorn", "-k", "gthread", "--threads", "64", "-b", f"127.0.0.1:{port}"]
        worker = [sys.executable, "-m", "celery", "-A", "bench.naive.tasks", "worker", "--pool", "solo", "--loglevel", "WARNING"]
        return [[*gunicorn, "bench.naive.app:app"], worker]

    def environment(self, workload: Workload, folder: Path) -> dict[str, str]:
        redis_url = self._services["REDIS_URL"].rpartition("/")[0] + "/9"
        return dict(self._services) | {"NAIVE_MODEL": str(workload.folder), "NAIVE_REDIS_URL": redis_url}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _first_answer(request: Request, log: Path) -> list[float]:
    """The prediction of the first answer that is a 200."""
    http = urllib3.PoolManager(retries=False, timeout=60)
    deadline = time.monotonic() + _START_TIMEOUT_S
    last = "no answer"
    while time.monotonic() < deadline:
        try:
            answer = http.request(
                "POST", request.url, body=request.body.read_bytes(), headers={"Content-Type": request.content_type}
            )
        except urllib3.exceptions.HTTPError as error:
            last = str(error)
        else:
            if answer.status == 200:  # noqa: PLR2004
                return [float(value) for value in _prediction(json.loads(answer.data))]
            last = f"{answer.status} {answer.data[:300]!r}"
        time.sleep(0.1)
    raise RuntimeError(f"{request.url} does not answer ({last}); the end of {log}:\n{log.read_text()[-3000:]}")


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


def _marked(mark: str) -> list[psutil.Process]:
    """The processes that have the mark, and those below them: a server that sets its title writes over its environment."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(_MARK) == mark:
                found |= {one.pid: one for one in (process, *process.children(recursive=True))}
    return [process for process in found.values() if _is_running(process)]


def _is_running(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def _role(process: psutil.Process) -> str:
    command = " ".join(process.cmdline())
    marks = {
        "predictor": "predictor_process",
        "relay": "server.py relay",
        "api": "server.py api",
        "worker": "celery",
        "broker": "valkey",
        "web": "gunicorn",
        "supervisor": "server.py",
    }
    return next((role for role, mark in marks.items() if mark in command), "other")


def _end(mark: str, timeout_s: float = 40) -> None:
    """SIGTERM to those whose parent is not one of them, time to end, SIGKILL to the rest."""
    processes = _marked(mark)
    own = {process.pid for process in processes}
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if process.ppid() not in own:
                process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while _marked(mark) and time.monotonic() < deadline:
        time.sleep(0.2)
    for process in _marked(mark):
        with contextlib.suppress(psutil.Error):
            process.kill()
