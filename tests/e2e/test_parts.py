"""Each part as a process of its own, as docs/operations.md says; and what Celery's own tools see of it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from celery import Celery
from sklearn.datasets import load_digits
from support.service import ROOT, Service, wait_until

from inference.redis_client import kombu_url
from inference.settings import load_settings

pytestmark = pytest.mark.process

METADATA = json.dumps({"shape": [8, 8, 1], "dtype": "float32"})


def zero() -> bytes:
    return bytes((load_digits().images[0] * (255 / 16)).astype("<f4").tobytes())


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The worker first and the broker last: the order must not matter."""
    service = Service(tmp_path_factory.mktemp("parts"), {"models": ["models/digits"]})
    commands = (
        ("-m", "celery", "-A", "tasks", "worker", "-Q", "predict.digits"),
        ("server.py", "relay"),
        ("server.py", "api", "--port", str(service.port)),
        ("server.py", "broker"),
    )
    with service.log_file.open("ab") as log:
        running = [
            subprocess.Popen([sys.executable, *command], cwd=ROOT, env=service.environment, stdout=log, stderr=subprocess.STDOUT)
            for command in commands
        ]
    try:
        wait_until(lambda: _is_ready(service), timeout_s=90, what="the parts are ready")
        yield service
    finally:
        for process in running:
            process.terminate()
            assert process.wait(60) == 0, service.log


def _is_ready(service: Service) -> bool:
    try:
        return requests.get(f"{service.url}/health/ready", timeout=5).ok
    except requests.ConnectionError:
        return False


def test_the_parts_work_together(parts: Service) -> None:
    answer = parts.post(zero(), metadata=METADATA)

    assert answer.status_code == requests.codes.ok, answer.text
    assert answer.json()["response"]["class"] == 0
    wait_until((parts.data_dir / "results.jsonl").exists, timeout_s=20, what="the result is delivered")


def test_celery_events_tell_each_task(parts: Service, repository: Path) -> None:
    app = Celery(broker=kombu_url(load_settings(parts.config)))
    photo = (repository / "samples/coffee.jpg").read_bytes()
    types: dict[str, list[str]] = {}
    received: dict[str, dict[str, Any]] = {}

    def note(event: dict[str, Any]) -> None:
        if event["type"].startswith("task-"):
            types.setdefault(event["uuid"], []).append(event["type"])
            received.setdefault(event["type"], event)

    with (
        app.connection() as connection,
        contextlib.closing(
            app.events.Receiver(connection, handlers={"*": note}).itercapture(limit=None, timeout=60)
        ) as capturing,
    ):
        next(capturing)  # a heartbeat: it listens
        good = parts.submit(zero(), metadata=METADATA)
        bad = parts.submit(photo[: len(photo) // 3])
        while len(types.get(good, [])) < 3 or len(types.get(bad, [])) < 2:
            next(capturing)

    assert types == {
        good: ["task-received", "task-started", "task-succeeded"],
        bad: ["task-received", "task-failed"],  # it does not decode, so it never starts
    }
    assert received["task-received"]["name"] == "tasks.predict"
    assert good in received["task-received"]["kwargs"]
    assert received["task-succeeded"]["result"].startswith("0 0 ")
    assert "InvalidImage" in received["task-failed"]["exception"]
