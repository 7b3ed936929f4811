"""Each part as a process of its own, as docs/operations.md says; and what Celery's own tools see of it."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from celery import Celery
from sklearn.datasets import load_digits
from support.client import wait_until
from support.parts import Parts

from inference.runtime.redis import kombu_url
from inference.settings import load_settings

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]

METADATA = json.dumps({"shape": [8, 8, 1], "dtype": "float32"})


def zero() -> bytes:
    return bytes((load_digits().images[0] * (255 / 16)).astype("<f4").tobytes())


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parts") / "data"


@pytest.fixture(scope="module")
def parts(data_dir: Path) -> Iterator[Parts]:
    """The worker first and the broker last: the order must not matter."""
    config = data_dir.with_name("config.yaml")
    config.write_text(yaml.safe_dump({"data_dir": str(data_dir), "models": ["models/digits"]}), encoding="utf-8")
    parts = Parts(config.parent, config, {})
    try:
        parts.start_worker("worker", "-Q", "predict.digits")
        parts.start_relay("relay")
        parts.start_api()
        parts.start_broker()
        parts.wait_ready()
        yield parts
    finally:
        parts.stop_all()


def test_the_parts_work_together(parts: Parts, data_dir: Path) -> None:
    answer = parts.post(zero(), metadata=METADATA)

    assert answer.status_code == requests.codes.ok, answer.text
    assert answer.json()["response"]["class"] == 0
    wait_until((data_dir / "results.jsonl").exists, timeout_s=20, what="the result is delivered")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's scheduling policies")
def test_no_part_takes_a_core_from_who_runs(parts: Parts) -> None:
    names = ("api", "broker", "relay", "worker")
    policies = {name: os.sched_getscheduler(parts.pid(name)) for name in names}

    assert policies == dict.fromkeys(names, os.SCHED_BATCH)
    assert os.sched_getscheduler(parts.predictor("worker").pid) == os.SCHED_BATCH


def test_celery_events_tell_each_task(parts: Parts, repository: Path) -> None:
    app = Celery(broker=kombu_url(load_settings(parts.config)))
    photo = (repository / "samples/coffee.jpg").read_bytes()
    heard: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def note(event: dict[str, Any]) -> None:
        if event["type"].startswith("task-"):
            heard[event["uuid"]].append(event)

    with (
        app.connection() as connection,
        contextlib.closing(
            app.events.Receiver(connection, handlers={"*": note}).itercapture(limit=None, timeout=60)
        ) as capturing,
    ):
        next(capturing)  # a heartbeat: it listens
        good = parts.submit(zero(), metadata=METADATA)
        bad = parts.submit(photo[: len(photo) // 3])
        while len(heard[good]) < 3 or len(heard[bad]) < 2:
            next(capturing)

    received, started, succeeded = heard[good]  # what an earlier test's tasks say may come too
    assert [event["type"] for event in (received, started, succeeded)] == ["task-received", "task-started", "task-succeeded"]
    assert [event["type"] for event in heard[bad]] == ["task-received", "task-failed"]  # it does not decode: it never starts
    assert received["name"] == "tasks.predict"
    assert good in received["kwargs"]
    assert succeeded["result"].startswith("0 0 ")
    assert "InvalidImage" in heard[bad][1]["exception"]
