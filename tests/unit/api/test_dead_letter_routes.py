"""GET /dead-letters and POST /dead-letters/ID/replay."""

from __future__ import annotations

import pytest
from api_rig import FakeWorker, assert_problem, post_async, raw_form, services_of
from flask import Flask
from flask.testing import FlaskClient

from inference.lifecycle.dead_letters import move_to_dead_letters

OWNER = "dying-worker"


@pytest.fixture
def dead_letters(app: Flask, client: FlaskClient) -> list[str]:
    """Ids of two tasks that were given up, the oldest first."""
    services = services_of(app)
    task_ids = [post_async(client, raw_form(number, request_id=f"photo-{number}")) for number in (1, 2)]
    for task_id in task_ids:
        services.store.lease(OWNER, [task_id])
        services.store.start(OWNER, [task_id])
        services.store.note_death(OWNER, [task_id])
        assert move_to_dead_letters(services.store, services.objects, OWNER, services.store.get(task_id))
    return task_ids


def test_a_list_without_any(client: FlaskClient) -> None:
    assert client.get("/dead-letters").json == {"tasks": [], "count": 0}


def test_the_oldest_come_first(client: FlaskClient, dead_letters: list[str]) -> None:
    document = client.get("/dead-letters").json
    assert [task["task_id"] for task in document["tasks"]] == dead_letters
    assert {task["error"]["code"] for task in document["tasks"]} == {"predictor_died"}
    limited = client.get("/dead-letters?limit=1").json
    assert ([task["task_id"] for task in limited["tasks"]], limited["count"]) == (dead_letters[:1], 2)


@pytest.mark.parametrize("limit", ["0", "501", "x", ""])
def test_a_wrong_limit(client: FlaskClient, limit: str) -> None:
    assert_problem(client.get(f"/dead-letters?limit={limit}"), 400, "invalid_request", field="limit")


def test_an_image_runs_again_as_a_new_task(client: FlaskClient, idle_worker: FakeWorker, dead_letters: list[str]) -> None:
    response = client.post(f"/dead-letters/{dead_letters[0]}/replay")
    task = response.json
    assert (response.status_code, task["status"], task["request_id"]) == (202, "queued", "photo-1")
    assert response.headers["Location"] == task["urls"]["self"] == f"/tasks/{response.headers['Task-Id']}"
    assert task["task_id"] not in dead_letters
    assert [left["task_id"] for left in client.get("/dead-letters").json["tasks"]] == dead_letters[1:]
    idle_worker.work_off()
    assert client.get(response.headers["Location"]).json["result"]["class"] == 1


def test_what_is_no_dead_letter_is_not_replayed(client: FlaskClient, dead_letters: list[str]) -> None:
    task_id = post_async(client)
    assert_problem(client.post(f"/dead-letters/{task_id}/replay"), 404, "task_not_found", task_id=task_id)
    assert_problem(client.post(f"/dead-letters/{'0' * 32}/replay"), 404, "task_not_found")
    assert_problem(client.post(f"/dead-letters/{dead_letters[0]}/replay", data=b"x"), 400, "invalid_request", field="body")
    assert client.get("/dead-letters").json["count"] == 2


def test_one_is_discarded(client: FlaskClient, dead_letters: list[str]) -> None:
    response = client.delete(f"/dead-letters/{dead_letters[0]}")
    assert (response.status_code, response.json["task_id"], response.json["status"]) == (200, dead_letters[0], "failed")
    assert [left["task_id"] for left in client.get("/dead-letters").json["tasks"]] == dead_letters[1:]
    assert client.get(f"/tasks/{dead_letters[0]}").status_code == 200  # until its time is over
    assert_problem(client.post(f"/dead-letters/{dead_letters[0]}/replay"), 404, "task_not_found")
    assert_problem(client.delete(f"/dead-letters/{dead_letters[0]}"), 404, "task_not_found")
