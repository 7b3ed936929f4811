"""Deadlines, cancels, lost messages, dead letters: the promises, tried against a running service."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import requests
from sklearn.datasets import load_digits
from support.celery_user import node_of
from support.file_sink import file_documents
from support.service import ROOT, Service, wait_until

from inference.container import Services
from inference.domain import ImageFormat, ImageHeader, QueueItem, TaskSubmission
from inference.lifecycle.dead_letters import move_to_dead_letters
from inference.models.registry import reference
from inference.settings import load_settings
from inference.storage.protocol import upload_key

pytestmark = pytest.mark.process

METADATA = json.dumps({"shape": [8, 8, 1], "dtype": "float32"})


def zero() -> bytes:
    """8x8 float32 pixels of the digit 0."""
    return bytes((load_digits().images[0] * (255 / 16)).astype("<f4").tobytes())


@pytest.fixture
def suspended(service: Service) -> Iterator[Service]:
    """The service while its predictor does not answer."""
    service.wait_ready()
    service.suspend_predictor()
    yield service
    for predictor in service.processes("predictor"):
        predictor.resume()
    service.wait_ready()


@pytest.fixture
def services(service: Service) -> Services:
    """The same stores that the running service has."""
    return Services(load_settings(service.config))


def new_request(services: Services, *, deadline_s: float = 60) -> TaskSubmission:
    spec = services.models.get()
    task_id = uuid.uuid4().hex
    key = upload_key(task_id, datetime.now(UTC))
    services.objects.put(key, zero())
    item = QueueItem(task_id, key, ImageHeader(ImageFormat.RAW, (8, 8, 1), "<f4"))
    return TaskSubmission(
        task_id=task_id,
        request_id=f"request-{task_id}",
        model=reference(spec),
        queue=spec.queue,
        item=item,
        deadline_s=deadline_s,
        sinks=("jsonl",),
    )


def run(service: Service, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=service.environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_status(service: Service, task_id: str, status: str) -> dict[str, Any]:
    def reached() -> dict[str, Any] | None:
        task = service.task(task_id)
        return task if task["status"] == status else None

    task: dict[str, Any] = wait_until(reached, timeout_s=30, what=f"the task is {status}")
    return task


def test_a_synchronous_caller_hears_of_the_deadline(suspended: Service) -> None:
    response = suspended.post_with_short_deadline(zero(), metadata=METADATA)

    assert response.status_code == requests.codes.gateway_timeout
    problem = response.json()
    assert problem["code"] == "deadline_exceeded"
    assert suspended.task(problem["task_id"])["status"] == "expired"


def test_running_and_queued_tasks_expire(suspended: Service) -> None:
    running = suspended.submit(zero(), metadata=METADATA, deadline_s="5")
    wait_status(suspended, running, "running")
    queued = suspended.post_with_short_deadline(zero(), metadata=METADATA, mode="async").json()["task_id"]

    for task_id in (running, queued):
        task = wait_status(suspended, task_id, "expired")
        assert task["error"]["code"] == "deadline_exceeded"
        assert task["result"] is None


def test_wait_ends_with_202_and_the_task_goes_on(suspended: Service) -> None:
    response = suspended.post(zero(), metadata=METADATA, headers={"Prefer": "wait=1"})

    assert response.status_code == requests.codes.accepted
    task_id = response.json()["task_id"]
    for predictor in suspended.processes("predictor"):
        predictor.resume()
    assert suspended.task(task_id, wait_s=30)["status"] == "succeeded"


def test_cancel_while_running_discards_the_result(suspended: Service) -> None:
    running = suspended.submit(zero(), metadata=METADATA)
    wait_status(suspended, running, "running")
    queued = suspended.submit(zero(), metadata=METADATA)

    for task_id in (running, queued):
        canceled = requests.delete(f"{suspended.url}/tasks/{task_id}", timeout=60)
        assert canceled.status_code == requests.codes.ok
        assert canceled.json()["status"] == "canceled"
    for predictor in suspended.processes("predictor"):
        predictor.resume()
    after = suspended.post(zero(), metadata=METADATA)  # whatever was before it has gone through
    assert after.status_code == requests.codes.ok

    delivered = wait_until(
        lambda: [
            document["task_id"]
            for document in file_documents(suspended.data_dir)
            if document["task_id"] in {running, queued, after.json()["task_id"]}
        ],
        timeout_s=20,
        what="the result after them is delivered",
    )
    assert delivered == [after.json()["task_id"]]
    assert suspended.task(running)["status"] == "canceled"


def test_a_task_whose_message_was_lost_is_queued_again(service: Service, services: Services) -> None:
    service.wait_ready()
    request = new_request(services)
    services.store.accept(request, enqueue=None, max_queue_depth=0)  # as if a worker died between pop and note

    assert wait_status(service, request.task_id, "succeeded")["result"]["class"] == 0


def test_a_message_that_comes_twice_runs_once(service: Service, services: Services) -> None:
    from inference.domain import QueueMessage  # noqa: PLC0415

    service.wait_ready()
    request = new_request(services)
    message = QueueMessage(request.model, (request.item,))
    enqueue = services.broker.prepare(request.queue, message)
    services.store.accept(request, enqueue=enqueue, max_queue_depth=0)
    for _ in range(3):
        services.broker.publish(request.queue, message)

    assert wait_status(service, request.task_id, "succeeded")["attempts"] == 1
    wait_until(lambda: services.broker.get_depth(request.queue) == 0, timeout_s=60, what="every message is taken")
    assert service.task(request.task_id)["attempts"] == 1


def test_an_operator_lists_replays_and_discards_dead_letters(service: Service, services: Services) -> None:
    store = services.store
    dead = [new_request(services) for _ in range(2)]
    for request in dead:
        store.accept(request, enqueue=None, max_queue_depth=0)
        store.lease("test", [request.task_id])
        store.start("test", [request.task_id])
        store.note_death("test", [request.task_id])
        assert move_to_dead_letters(store, services.objects, "test", store.get(request.task_id))
        services.objects.delete(request.item.object_key)  # as retention will
    replayed, discarded = (request.task_id for request in dead)

    assert service.task(replayed)["error"]["code"] == "predictor_died"
    listed = run(service, "server.py", "dead-letters", "list")
    assert [line.split()[0] for line in listed.splitlines()] == [replayed, discarded]

    answer = run(service, "server.py", "dead-letters", "replay", replayed)
    run(service, "server.py", "dead-letters", "discard", discarded)
    new_id = answer.split()[-1]
    task = wait_status(service, new_id, "succeeded")
    assert task["result"]["class"] == 0
    assert task["request_id"] == dead[0].request_id
    assert run(service, "server.py", "dead-letters", "list") == ""
    assert service.task(replayed)["status"] == "failed"  # it stays as it ended


def test_celery_shows_what_the_worker_holds(suspended: Service) -> None:
    task_ids = [suspended.submit(zero(), metadata=METADATA) for _ in range(3)]
    wait_status(suspended, task_ids[0], "running")
    node = node_of(suspended)

    def inspected(what: str) -> list[dict[str, Any]]:
        answer = run(suspended, "-m", "celery", "-A", "tasks", "inspect", what, "--json", "--timeout", "20", "-d", node)
        (tasks,) = json.loads(answer).values()
        return list(tasks)

    def held() -> tuple[set[str], set[str]] | None:
        active, reserved = ({task["id"] for task in inspected(what)} for what in ("active", "reserved"))
        return (active, reserved) if len(active | reserved) == len(task_ids) else None

    active, reserved = wait_until(held, timeout_s=60, what="the worker holds all messages")
    assert task_ids[0] in active
    assert active | reserved == set(task_ids)
    assert not active & reserved

    run(suspended, "-m", "celery", "-A", "tasks", "control", "-d", node, "revoke", task_ids[-1])
    for predictor in suspended.processes("predictor"):
        predictor.resume()
    assert suspended.task(task_ids[0], wait_s=30)["status"] == "succeeded"
    wait_status(suspended, task_ids[-1], "canceled")
    wait_until(lambda: not inspected("active") and not inspected("reserved"), timeout_s=30, what="nothing is held")
