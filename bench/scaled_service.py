"""Service whose workers are started and stopped while it runs, for `bench.autoscaling`."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import psutil
import urllib3
import yaml

from bench.contenders import free_port
from bench.processes import Processes
from bench.workload import ROOT
from inference.rollout.worker_registry import WorkerPresence
from inference.runtime.redis import connect, task_store_url
from inference.settings import load_settings
from inference.task_store.redis_store import RedisTaskStore, StorePolicy

_START_TIMEOUT_S = 120.0
#: An image for the model, and its description.
IMAGE, METADATA = bytes(8 * 8 * 4), '{"shape": "8,8,1", "dtype": "float32"}'
_CODE = """\
import time

class Waits:
    def postprocess(self, vector):
        time.sleep({wait_s})
        return {{}}
"""


class Service:
    """Broker, relay and API as processes, and the workers of one model, of which there are none at first.

    Args:
        processes: starts them, and ends them at the last.
        config: their configuration, with one model.
    """

    def __init__(self, processes: Processes, config: Path, port: int) -> None:
        self._processes = processes
        settings = load_settings(config)
        prefix = settings.task_store.key_prefix
        client = connect(task_store_url(settings))
        self._model = prefix
        self._redis = client
        self._key = f"{prefix}:waiting:predict.{prefix}"
        self._presence = WorkerPresence(client, prefix)
        self._known: set[str] = set()
        self.store = RedisTaskStore(client, StorePolicy(prefix))
        self.url = f"http://127.0.0.1:{port}"
        self._running: list[_Worker] = []
        self._all: list[_Worker] = []
        self.changes: list[tuple[float, int]] = []

    @property
    def number(self) -> int:
        """Workers that were not told to stop."""
        return len(self._running)

    @property
    def is_quiet(self) -> bool:
        """Whether no worker is there."""
        return not any(worker.is_there for worker in self._all)

    @property
    def worker_s(self) -> list[float]:
        return [worker.ended_s - worker.began_s for worker in self._all]

    @property
    def start_s(self) -> list[float]:
        return [worker.ready_s - worker.began_s for worker in self._all if worker.ready_s]

    def figures(self) -> tuple[float, float]:
        """Waiting tasks, and seconds since the oldest was accepted."""
        return float(self._redis.zcard(self._key)), self.store.get_queue_stats(f"predict.{self._model}").oldest_age_s

    def close(self) -> None:
        """Close the connections to Redis; the processes are those of `processes`."""
        self._redis.close()

    def scale(self, number: int) -> None:
        """Start workers, or end the newest."""
        if number != self.number:
            self.changes.append((time.monotonic(), number))
        while self.number < number:
            self._running.append(self._start_worker())
        while self.number > number:
            self._running.pop().process.send_signal(signal.SIGTERM)

    def look(self) -> None:
        """Notice which workers are ready, and which have ended.

        Raises:
            RuntimeError: a worker ended by itself.
        """
        loading = [worker for worker in self._all if not worker.ready_s]
        if loading:
            new = {info.worker for info in self._presence.workers()} - self._known
            self._known |= new
            # their names in the registry are not ours: the first to start is taken for the first to be ready
            for worker, _ in zip(loading, new, strict=False):
                worker.ready_s = time.monotonic()
        for worker in self._all:
            worker.look()
            # SIGTERM in the first second, before Celery handles it, ends the process at once; it has taken nothing yet
            expected = (None,) if worker in self._running else (None, 0, -signal.SIGTERM)
            if worker.code not in expected:
                raise RuntimeError(f"a worker ended with exit code {worker.code}; see {self._processes.log}")

    def _start_worker(self) -> _Worker:
        name = f"worker-{len(self._all) + 1}@%h"
        options = ["--without-gossip", "--without-mingle", "-n", name, "-Q", f"predict.{self._model}"]
        command = [sys.executable, "-m", "celery", "--quiet", "-A", "tasks", "worker", *options]
        worker = _Worker(self._processes.start(command))
        self._all.append(worker)
        return worker


@dataclass(eq=False)
class _Worker:
    process: psutil.Popen
    began_s: float = field(default_factory=time.monotonic)
    #: 0 until then
    ready_s: float = 0.0
    ended_s: float = 0.0
    code: int | None = None

    @property
    def is_there(self) -> bool:
        return self.code is None

    def look(self) -> None:
        if self.is_there:
            self.code = self.process.poll()
            self.ended_s = time.monotonic()


@contextmanager
def started(folder: Path, *, wait_s: float, variables: Mapping[str, str], redis_url: str | None = None) -> Iterator[Service]:
    """Start a service without workers; all its processes are ended after the block.

    Args:
        folder: an empty folder; its name becomes that of the model.
        wait_s: how long the model takes for an image.
        variables: of the environment of all processes.
        redis_url: server of queue and records; None: an embedded one.
    """
    port = free_port()
    config = _write_config(folder, wait_s, redis_url)
    with Processes({**variables, "INFERENCE_CONFIG": str(config)}, folder / "log") as processes:
        server = [sys.executable, "server.py"]
        for command in ([] if redis_url else ["broker"]), ["relay"], ["api", "--port", str(port)]:
            if command:
                processes.start([*server, *command])
        _wait_ready(f"http://127.0.0.1:{port}/health/ready", processes.log)
        service = Service(processes, config, port)
        try:
            yield service
        finally:
            service.close()


def _write_config(folder: Path, wait_s: float, redis_url: str | None) -> Path:
    model = folder / "model"
    shutil.copytree(ROOT / "models/digits", model)
    description = yaml.safe_load((model / "model.yaml").read_text(encoding="utf-8"))
    description |= {"name": folder.name, "code": "waits.py:Waits"}
    (model / "model.yaml").write_text(yaml.safe_dump(description), encoding="utf-8")
    (model / "waits.py").write_text(_CODE.format(wait_s=wait_s), encoding="utf-8")
    document = {
        "data_dir": str(folder / "data"),
        "models": [str(model)],
        "sinks": [],
        "api": {"ready_without_workers": True, "shutdown_delay_s": 0},
        "broker": {"url": redis_url or "embedded"},
        "task_store": {"key_prefix": folder.name},
    }
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    return config


def _wait_ready(url: str, log: Path) -> None:
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    with urllib3.PoolManager(retries=False, timeout=10) as http:
        while time.monotonic() < deadline_s:
            with suppress(urllib3.exceptions.HTTPError):
                if http.request("GET", url).status == HTTPStatus.OK:
                    return
            time.sleep(0.1)
    raise RuntimeError(f"{url} is not ready; see {log}")
