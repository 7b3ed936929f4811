"""kill -9 in the middle of twenty requests: none is lost, none is delivered under two ids, each ends once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import orjson
import pytest
import requests
from sklearn.datasets import load_digits
from support.service import Service, wait_until

pytestmark = pytest.mark.process

COUNT = 20
METADATA = json.dumps({"shape": [8, 8, 1], "dtype": "float32"})


def pixels(number: int) -> bytes:
    return bytes((load_digits().images[number] * (255 / 16)).astype("<f4").tobytes())


def submit(service: Service) -> list[str]:
    with ThreadPoolExecutor(COUNT) as callers:
        return list(
            callers.map(lambda number: service.submit(pixels(number), metadata=METADATA, request_id=f"r{number}"), range(COUNT))
        )


def statuses(service: Service, task_ids: list[str]) -> list[str]:
    return [service.task(task_id)["status"] for task_id in task_ids]


def wait_running(service: Service, task_ids: list[str]) -> None:
    wait_until(lambda: "running" in statuses(service, task_ids), timeout_s=20, what="a batch is running")


def ended(service: Service, task_ids: list[str]) -> list[dict[str, Any]]:
    """Every task once it has succeeded and its result is in the sink."""

    def all_delivered() -> list[dict[str, Any]] | None:
        tasks = [service.task(task_id, wait_s=10) for task_id in task_ids]
        done = all(task["deliveries"] == [{"sink": "jsonl", "status": "delivered"}] for task in tasks)
        return tasks if done else None

    tasks: list[dict[str, Any]] = wait_until(all_delivered, timeout_s=90, what="every result is delivered")
    return tasks


def assert_none_is_lost(service: Service, task_ids: list[str]) -> None:
    tasks = ended(service, task_ids)
    assert [task["status"] for task in tasks] == ["succeeded"] * COUNT
    expected = load_digits().target[:COUNT]
    assert np.mean([task["result"]["class"] for task in tasks] == expected) > 0.9
    assert [task["request_id"] for task in tasks] == [f"r{number}" for number in range(COUNT)]
    documents = [orjson.loads(line) for line in (service.data_dir / "results.jsonl").read_bytes().splitlines()]
    assert set(task_ids) <= {document["task_id"] for document in documents}


def test_worker_and_predictor_killed_while_a_batch_runs(service: Service) -> None:
    service.suspend_predictor()
    task_ids = submit(service)
    wait_running(service, task_ids)

    service.kill("worker")

    assert_none_is_lost(service, task_ids)
    assert max(task["attempts"] for task in ended(service, task_ids)) == 2
    service.wait_ready()


def test_predictor_killed_while_a_batch_runs(service: Service) -> None:
    service.suspend_predictor()
    task_ids = submit(service)
    wait_running(service, task_ids)

    service.kill("predictor")

    assert_none_is_lost(service, task_ids)
    tasks = ended(service, task_ids)
    assert {task["attempts"] for task in tasks} == {1, 2}
    assert all(task["batch_size"] == 1 for task in tasks if task["attempts"] == 2)  # run alone after the crash
    service.wait_ready()


def test_relay_killed(service: Service) -> None:
    service.kill("relay")
    task_ids = submit(service)
    service.kill("relay")

    assert_none_is_lost(service, task_ids)


def test_api_killed_after_it_accepted(service: Service) -> None:
    service.suspend_predictor()
    task_ids = submit(service)

    service.kill("api")
    for predictor in service.processes("predictor"):
        predictor.resume()
    service.wait_ready()

    assert_none_is_lost(service, task_ids)


def test_api_killed_while_callers_wait(service: Service) -> None:
    """The callers see the connection break; what was accepted runs all the same."""
    service.suspend_predictor()
    with ThreadPoolExecutor(COUNT) as callers:
        waiting = [
            callers.submit(service.post, pixels(number), metadata=METADATA, request_id=f"waiting-{number}")
            for number in range(COUNT)
        ]

        def accepted() -> list[str]:
            found = [
                task["task_id"]
                for number in range(COUNT)
                for task in requests.get(f"{service.url}/tasks", params={"request_id": f"waiting-{number}"}, timeout=30).json()[
                    "tasks"
                ]
            ]
            return found if len(found) == COUNT else []

        task_ids = wait_until(accepted, timeout_s=30, what="all are accepted")
        service.kill("api")
        assert all(isinstance(caller.exception(60), requests.RequestException) for caller in waiting)
    for predictor in service.processes("predictor"):
        predictor.resume()
    service.wait_ready()

    assert [task["status"] for task in ended(service, task_ids)] == ["succeeded"] * COUNT


def test_broker_killed_while_a_batch_runs(service: Service) -> None:
    service.suspend_predictor()
    task_ids = submit(service)
    wait_running(service, task_ids)

    service.kill("broker")
    for predictor in service.processes("predictor"):
        predictor.resume()
    service.wait_ready()

    assert_none_is_lost(service, task_ids)


def test_everything_killed_but_the_supervisor(service: Service) -> None:
    service.suspend_predictor()
    task_ids = submit(service)
    wait_running(service, task_ids)

    for part in ("worker", "predictor", "relay", "api", "broker"):
        service.kill(part)
    service.wait_ready()

    assert_none_is_lost(service, task_ids)
