"""Submit and poll, wait, cancel, find again."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
import requests
from support.service import Service

pytestmark = pytest.mark.process


@pytest.fixture
def photo(repository: Path) -> Path:
    return repository / "samples/coffee.jpg"


def test_submit_and_long_poll(service: Service, photo: Path) -> None:
    response = service.post(photo, headers={"Prefer": "respond-async"})

    assert response.status_code == requests.codes.accepted
    assert response.headers["Preference-Applied"] == "respond-async"
    task = response.json()
    assert response.headers["Location"] == task["urls"]["self"] == f"/tasks/{task['task_id']}"
    ended = service.task(task["task_id"], wait_s=30)
    assert ended["status"] == "succeeded"
    assert ended["result"]["class"] == 967
    assert ended["attempts"] == 1
    # A small image comes with the lease: nothing is fetched.
    assert {"store_ms", "queue_ms", "decode_ms", "batch_wait_ms", "predict_ms", "commit_ms"} == set(ended["timings"])
    assert ended["created_at"] <= ended["started_at"] <= ended["finished_at"] < ended["deadline_at"]


def test_prefer_wait_answers_when_the_result_is_there_in_time(service: Service, photo: Path) -> None:
    response = service.post(photo, headers={"Prefer": "wait=20"})

    assert response.status_code == requests.codes.ok
    assert response.json()["response"]["class"] == 967


def test_tasks_are_found_by_request_id(service: Service, photo: Path) -> None:
    request_id = uuid.uuid4().hex
    task_ids = [service.submit(photo, request_id=request_id) for _ in range(2)]

    found = requests.get(f"{service.url}/tasks", params={"request_id": request_id}, timeout=60).json()["tasks"]

    assert [task["task_id"] for task in found] == task_ids[::-1]  # newest first


def test_an_unknown_task_is_not_found_and_never_pending(service: Service) -> None:
    response = requests.get(f"{service.url}/tasks/{uuid.uuid4().hex}", params={"wait": 5}, timeout=60)

    assert response.status_code == requests.codes.not_found
    assert response.json()["code"] == "task_not_found"


def test_the_same_idempotency_key_gives_the_same_task(service: Service, photo: Path) -> None:
    headers = {"Idempotency-Key": uuid.uuid4().hex}

    first = service.post(photo, headers=headers)
    second = service.post(photo, headers=headers)
    other = service.post(photo.with_name("chelsea.jpg"), headers=headers)

    assert first.status_code == second.status_code == requests.codes.ok
    assert second.json() == first.json()
    assert second.headers["Idempotent-Replayed"] == "true"
    assert other.status_code == requests.codes.conflict
    assert other.json()["code"] == "idempotency_conflict"


def test_an_ended_task_cannot_be_canceled(service: Service, photo: Path) -> None:
    task_id = service.post(photo).json()["task_id"]

    response = requests.delete(f"{service.url}/tasks/{task_id}", timeout=60)

    assert response.status_code == requests.codes.conflict
    assert service.task(task_id)["status"] == "succeeded"
