"""User of a running service with Celery's command line, Flower or a plain client."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import kombu.pools
import psutil
import requests
import yaml
from celery import Celery
from sklearn.datasets import load_digits
from support.service import ROOT, Service, free_port, wait_until

from inference.runtime.redis import kombu_url
from inference.settings import load_settings

METADATA = {"shape": [8, 8, 1], "dtype": "<f4"}
#: Flower's.
LOGIN = ("someone", "secret-of-a-test")


def zero() -> bytes:
    """A handwritten 0, as the digits model wants it."""
    return bytes((load_digits().images[0] * (255 / 16)).astype("<f4").tobytes())


def digits_named(name: str, folder: Path) -> Path:
    """The digits model under another name, which is its queue's too."""
    model = folder / name
    shutil.copytree(ROOT / "models" / "digits", model)
    description = yaml.safe_load((model / "model.yaml").read_text(encoding="utf-8"))
    (model / "model.yaml").write_text(yaml.safe_dump(description | {"name": name}), encoding="utf-8")
    return model


def node_of(service: Service) -> str:
    """Name the service's only worker: a command with `-d NODE` ends with its answer, others after `--timeout`."""
    with Celery(broker=kombu_url(load_settings(service.config))) as app:
        (answer,) = wait_until(lambda: app.control.ping(timeout=5, limit=1), timeout_s=60, what="the worker answers")
    (node,) = answer
    return str(node)


class Parts:
    """A service whose parts were each started by its own command, the worker under a node name of its own."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._running.values()):  # the broker last
            process.terminate()
            assert process.wait(60) == 0, self.service.log

    def start(self, name: str, *command: str) -> None:
        with self.service.log_file.open("ab") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, *command], cwd=ROOT, env=self.service.environment, stdout=log, stderr=subprocess.STDOUT
            )

    def start_worker(self, name: str, queue: str) -> str:
        """Gives the worker's node name, which is no other's on a broker that is shared."""
        node = f"{name}@{queue}"
        self.start(name, "-m", "celery", "-A", "tasks", "worker", "-n", node, "-Q", queue)
        return node

    def predictor(self, name: str) -> psutil.Process:
        """The predictor process of a worker."""
        below = psutil.Process(self._running[name].pid).children(recursive=True)
        (predictor,) = (process for process in below if "inference.models.predictor.process" in process.cmdline())
        return predictor

    def kill(self, name: str) -> None:
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def end(self, name: str) -> None:
        """End a worker like SIGTERM."""
        self._running[name].terminate()
        assert self.wait(name) == 0, self.service.log

    def wait(self, name: str, timeout_s: float = 60) -> int:
        """Until it has ended; gives its exit code."""
        return self._running.pop(name).wait(timeout_s)

    def wait_ready(self) -> None:
        wait_until(self._is_ready, timeout_s=90, what="the parts are ready")

    def _is_ready(self) -> bool:
        with contextlib.suppress(requests.ConnectionError, requests.Timeout):
            return requests.get(f"{self.service.url}/health/ready", timeout=5).ok
        return False


class CeleryUser:
    """Celery's commands against one worker.

    Args:
        node: the worker's node name, so that no command reaches another's on a shared broker.
    """

    def __init__(self, parts: Parts, node: str, queue: str) -> None:
        self.parts = parts
        self.service = service = parts.service
        self.node = node
        self.queue = queue
        self.app = Celery(broker=kombu_url(load_settings(service.config)))

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "celery", "-A", "tasks", *command],
            cwd=ROOT,
            env=self.service.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def inspect(self, command: str) -> Any:
        """The worker's answer to a command without words; faster than typing it."""
        (answer,) = self.app.control.broadcast(command, destination=[self.node], reply=True, limit=1, timeout=20)
        return answer[self.node]

    def hang_up(self) -> None:
        """Close this process's connections to the broker; the next call makes new ones."""
        kombu.pools.reset()
        self.app = Celery(broker=self.app.conf.broker_url)

    def is_there(self) -> bool:
        return bool(self.app.control.ping(destination=[self.node], timeout=2))

    def type_inspect(self, command: str, *words: str) -> Any:
        """The worker's answer to `celery inspect …`."""
        return self._typed("inspect", command, *words)[self.node]

    def type_control(self, command: str, *words: str) -> Any:
        """The worker's answer to `celery control …`."""
        (answer,) = self._typed("control", command, *words)
        return answer[self.node]

    def _typed(self, kind: str, command: str, *words: str) -> Any:
        done = self.run(kind, "--json", "--timeout", "5", "-d", self.node, command, *words)
        assert done.stdout.startswith(("{", "[")), done
        return json.loads(done.stdout)

    def submit(self, **metadata: Any) -> str:
        """A zero, for the API; gives the task's id."""
        return self.service.submit(zero(), metadata=json.dumps(METADATA | metadata))

    def submit_with_short_deadline(self) -> str:
        """A zero, for the API, that expires soon; gives the task's id."""
        response = self.service.post_with_short_deadline(zero(), metadata=json.dumps(METADATA), mode="async")
        return str(response.json()["task_id"])

    def wait_for(self, status: str, *task_ids: str, timeout_s: float = 60) -> None:
        wait_until(
            lambda: {self.service.task(task_id)["status"] for task_id in task_ids} == {status},
            timeout_s=timeout_s,
            what=f"{task_ids} are {status}",
        )

    @contextlib.contextmanager
    def events(self) -> Iterator[Events]:
        """The events of tasks from now on."""
        with self.app.connection() as connection:
            yield Events(self.app, connection)


class Events:
    """Events of each task, in the order they came."""

    def __init__(self, app: Celery, connection: Any) -> None:
        self.of: dict[str, list[dict[str, Any]]] = defaultdict(list)
        receiver = app.events.Receiver(connection, handlers={"*": self._note})
        self._capturing = receiver.itercapture(limit=None, timeout=30)
        next(self._capturing)  # a heartbeat: it listens

    def types(self, task_id: str) -> list[str]:
        return [event["type"].removeprefix("task-") for event in self.of[task_id]]

    def wait(self, last: str, *task_ids: str, timeout_s: float = 60) -> None:
        """Until the last event of each is `last`."""
        deadline = time.monotonic() + timeout_s
        while any(self.types(task_id)[-1:] != [last] for task_id in task_ids):
            assert time.monotonic() < deadline, f"{last} of {task_ids}: there are {dict(self.of)}"
            next(self._capturing)

    def _note(self, event: dict[str, Any]) -> None:
        if event["type"].startswith("task-"):
            self.of[event["uuid"]].append(event)


class FlowerProcess:
    """`celery -A tasks flower` for a running service."""

    def __init__(self, service: Service, **variables: str) -> None:
        self._service = service
        self._variables = variables
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        environment = self._service.environment | {"FLOWER_BASIC_AUTH": ":".join(LOGIN)} | self._variables
        with self._service.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "tasks", "flower", f"--port={port}"],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_until(self._answers, timeout_s=60, what="Flower answers")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)

    def get(self, path: str, **parameters: Any) -> Any:
        response = requests.get(self.url + path, params=parameters, auth=LOGIN, timeout=20)
        assert response.ok, (response.status_code, response.text)
        return response.json()

    def tasks(self) -> dict[str, dict[str, Any]]:
        """Return the known fields of each task, by id."""
        found: dict[str, dict[str, Any]] = self.get("/api/tasks", limit=1000)
        return found

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._service.log
        with contextlib.suppress(requests.ConnectionError, requests.Timeout):
            return requests.get(f"{self.url}/healthcheck", timeout=5).ok
        return False
