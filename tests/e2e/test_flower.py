"""Flower with a running service: it shows how each task ended."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from support.celery_user import LOGIN, CeleryUser, FlowerProcess, Parts, zero
from support.service import ROOT, Service, wait_until

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("flower"), {"models": ["models/digits"], "sinks": []})
    try:
        service.start()
        yield service
    finally:
        service.end()


@pytest.fixture(scope="module")
def flower(service: Service) -> Iterator[FlowerProcess]:
    flower = FlowerProcess(service)
    try:
        flower.start()
        wait_until(lambda: flower.get("/api/workers"), timeout_s=30, what="Flower knows the worker")
        yield flower
    finally:
        flower.stop()


@pytest.fixture(scope="module")
def user(service: Service, flower: FlowerProcess) -> CeleryUser:
    (node,) = flower.get("/api/workers")
    return CeleryUser(Parts(service), node, "predict.digits")


def wait_for_states(flower: FlowerProcess, **states: str) -> dict[str, dict[str, Any]]:
    """Return Flower's view of these tasks, once they are in these states."""

    def found() -> dict[str, dict[str, Any]] | None:
        tasks = {task_id: task for task_id, task in flower.tasks().items() if task_id in states}
        return tasks if {task_id: task["state"] for task_id, task in tasks.items()} == states else None

    tasks: dict[str, dict[str, Any]] = wait_until(found, timeout_s=60, what=f"Flower shows {states}: {flower.tasks()}")
    return tasks


def test_its_counts_agree_with_what_was_sent(user: CeleryUser, flower: FlowerProcess, repository: Path) -> None:
    service = user.service
    photo = (repository / "samples/coffee.jpg").read_bytes()
    good = [user.submit() for _ in range(12)]
    bad = [service.submit(photo[: len(photo) // 3]) for _ in range(4)]
    user.wait_for("succeeded", *good)
    service.suspend_predictor()
    good += [user.submit()]
    wait_until(lambda: service.task(good[-1])["status"] == "running", timeout_s=20, what="a running task")
    expired = [user.submit_with_short_deadline() for _ in range(2)]
    revoked = [user.submit() for _ in range(5)]
    for task_id in revoked[:3]:
        requests.delete(f"{service.url}/tasks/{task_id}", timeout=20).raise_for_status()
    user.type_control("revoke", *revoked[3:])
    user.wait_for("canceled", *revoked)
    user.wait_for("expired", *expired)
    (predictor,) = service.processes("predictor")
    predictor.resume()

    states = dict.fromkeys(good, "SUCCESS") | dict.fromkeys(bad + expired, "FAILURE") | dict.fromkeys(revoked, "REVOKED")
    tasks = wait_for_states(flower, **states)
    assert Counter(task["state"] for task in flower.tasks().values()) == {"SUCCESS": 13, "FAILURE": 6, "REVOKED": 5}
    for state, count in (("SUCCESS", 13), ("FAILURE", 6), ("REVOKED", 5)):
        assert len(flower.get("/api/tasks", state=state)) == count
    assert {tasks[task_id]["exception"].partition("(")[0] for task_id in bad} == {"InvalidImage"}
    assert {tasks[task_id]["exception"].partition("(")[0] for task_id in expired} == {"DeadlineExceeded"}


def test_a_task_shows_its_keys_its_class_its_worker_and_how_long_it_ran(user: CeleryUser, flower: FlowerProcess) -> None:
    task_id = user.submit()
    task = wait_for_states(flower, **{task_id: "SUCCESS"})[task_id]

    assert (task["name"], task["args"], task["worker"]) == ("tasks.predict", "()", user.node)
    assert task["kwargs"].startswith("{'model': 'digits 1', 'items': [{'task_id': '" + task_id + "', 'object_key': 'uploads/")
    assert len(task["kwargs"]) < 200  # no bytes of the image
    assert task["result"].startswith("0 0 ")
    assert 0 < task["runtime"] < 60
    assert task["received"] <= task["started"] <= task["succeeded"]
    assert flower.get("/api/workers")[user.node]["registered"] == ["tasks.predict"]


def test_a_message_of_several_tasks_shows_each(user: CeleryUser, flower: FlowerProcess) -> None:
    for number in range(3):
        (user.service.data_dir / "uploads" / f"zero-{number}").write_bytes(zero())
    items = [{"object": f"zero-{number}", "shape": [8, 8, 1], "dtype": "<f4"} for number in range(3)]
    message_id = user.app.send_task("tasks.predict", kwargs={"items": items}, queue=user.queue).id
    half_bad_id = user.app.send_task("tasks.predict", kwargs={"items": [items[0], {"object": "gone"}]}, queue=user.queue).id

    tasks = wait_for_states(flower, **{message_id: "SUCCESS", half_bad_id: "FAILURE"})
    for number in range(3):
        assert f"{{'task_id': '{message_id}.{number}', 'object_key': 'zero-{number}'}}" in tasks[message_id]["kwargs"]
        assert f"{message_id}.{number}: 0 0 " in tasks[message_id]["result"]
    assert f"{half_bad_id}.0: 0 0 " in tasks[half_bad_id]["exception"]
    assert f"{half_bad_id}.1: ObjectNotFound(" in tasks[half_bad_id]["exception"]


def test_a_task_whose_attempt_died_was_retried(user: CeleryUser, flower: FlowerProcess) -> None:
    user.service.suspend_predictor()
    task_id = user.submit()
    wait_until(lambda: user.service.task(task_id)["status"] == "running", timeout_s=20, what="a running task")
    user.service.kill("predictor")
    task = wait_until(lambda: _retried(flower, task_id), timeout_s=20, what="Flower shows the retry")
    assert "the predictor process died: signal 9" in task["exception"]

    task = wait_for_states(flower, **{task_id: "SUCCESS"})[task_id]
    assert task["retries"] == 1
    assert task["received"] < task["retried"] < task["started"] < task["succeeded"]


def test_a_task_whose_worker_died_was_retried(user: CeleryUser, flower: FlowerProcess) -> None:
    user.service.suspend_predictor()
    task_id = user.submit()
    wait_until(lambda: user.service.task(task_id)["status"] == "running", timeout_s=20, what="a running task")
    user.service.kill("worker")

    task = wait_for_states(flower, **{task_id: "SUCCESS"})[task_id]
    assert task["retries"] == 1
    assert task["retried"] < task["started"] < task["succeeded"]


def test_nobody_gets_in_without_the_password(flower: FlowerProcess) -> None:
    for path in ("/", "/tasks", "/broker", "/metrics", "/api/tasks", "/api/workers", "/api/queues/length"):
        assert requests.get(flower.url + path, timeout=20).status_code == requests.codes.unauthorized
        strange = {"Authorization": f"Basic {base64.b64encode('sömeone:secret'.encode()).decode()}"}
        answer = requests.get(flower.url + path, headers=strange, timeout=20)
        assert (answer.status_code, "Traceback" in answer.text) == (requests.codes.unauthorized, False)
    assert "flower_worker_online" in requests.get(f"{flower.url}/metrics", auth=LOGIN, timeout=20).text
    for command in ("/api/worker/shutdown/celery@anyone", "/api/task/revoke/any"):
        response = requests.post(flower.url + command, auth=("someone", "wrong"), timeout=20)
        assert response.status_code == requests.codes.unauthorized


@pytest.mark.parametrize("option", ["--port=0", "--basic_auth=", "--basic-auth=someone:"])
def test_without_a_password_it_does_not_start(service: Service, option: str) -> None:
    command = [sys.executable, "-m", "celery", "-A", "tasks", "flower", option]
    environment = {name: value for name, value in service.environment.items() if name != "FLOWER_BASIC_AUTH"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "FLOWER_BASIC_AUTH=NAME:PASSWORD" in done.stderr


def test_what_kubernetes_sets_for_its_service_is_passed_over(service: Service) -> None:
    variables = {"FLOWER_PORT": "tcp://10.0.0.1:5555", "FLOWER_SERVICE_HOST": "10.0.0.1", "FLOWER_PORT_5555_TCP_PORT": "5555"}
    flower = FlowerProcess(service, **variables)
    try:
        flower.start()
        assert requests.get(f"{flower.url}/healthcheck", timeout=20).text == "OK"
    finally:
        flower.stop()


def test_a_port_that_is_none_is_told(service: Service) -> None:
    environment = service.environment | {"FLOWER_BASIC_AUTH": "a:b", "FLOWER_PORT": "http", "FLOWER_PERSISTENT": "maybe"}
    command = [sys.executable, "-m", "celery", "-A", "tasks", "flower"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert sorted(done.stderr.splitlines()) == [
        "error: FLOWER_PERSISTENT must be true or false (got 'maybe')",
        "error: FLOWER_PORT must be a whole number (got 'http')",
    ]


def test_it_remembers_after_a_restart(user: CeleryUser, flower: FlowerProcess) -> None:
    before = {task_id: task["state"] for task_id, task in flower.tasks().items()}
    assert before
    flower.stop()
    flower.start()
    assert {task_id: task["state"] for task_id, task in flower.tasks().items()} == before
    assert [*user.service.data_dir.glob("flower*")], "what it remembers lies in the service's data folder"


def _retried(flower: FlowerProcess, task_id: str) -> dict[str, Any] | None:
    task = flower.tasks().get(task_id, {})
    return task if task.get("retried") else None
