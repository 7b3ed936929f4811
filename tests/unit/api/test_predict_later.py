"""POST /inference, answered with a task: `Prefer`, `mode`, waiting for a while, and deadlines that pass."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from api_rig import (
    RAW_METADATA,
    Background,
    FakeWorker,
    accept_with,
    assert_problem,
    form,
    post,
    post_async,
    raw_form,
    raw_image,
    services_of,
    wait_until,
)
from flask import Flask
from flask.testing import FlaskClient
from support.task_pages import ids_of_request

from api.components import components_of
from inference.container import Services
from inference.errors import WaitTimeout
from inference.lifecycle.replies import ReplyRouter

MEMBERS = {
    *("task_id", "request_id", "status", "model", "created_at", "started_at", "finished_at", "deadline_at", "result", "error"),
    *("deliveries", "queue", "attempts", "timings", "batch_size", "urls"),
}

ASYNC: dict[str, dict[str, Any]] = {
    "Prefer: respond-async": {"headers": {"Prefer": "respond-async"}},
    "among other preferences": {"headers": {"Prefer": "return=minimal, respond-async"}},
    "in a second header": {"headers": [("Prefer", "return=minimal"), ("Prefer", "respond-async")]},
    "Prefer: wait=0": {"headers": {"Prefer": "wait=0"}},
    "respond-async, wait=0": {"headers": {"Prefer": "respond-async, wait=0"}},
    "in capitals": {"headers": {"Prefer": "Respond-Async"}},
    "mode in the form": {"data": {"mode": "async"}},
    "mode in metadata": {"data": {"metadata": {"mode": "async"}}},
    "mode in the query": {"path": "/inference?mode=async"},
}


def tasks_of(services: Services, request_id: str) -> list[str]:
    return ids_of_request(services.store, request_id)


@pytest.mark.parametrize("how", ASYNC.values(), ids=ASYNC)
def test_a_task_is_answered_at_once(client: FlaskClient, how: dict[str, Any]) -> None:
    """No worker is there: whoever waited would wait for long."""
    options = dict(how)
    response = post(client, raw_form(deadline_s="3", **options.pop("data", {})), **options)
    assert response.status_code == 202
    task = response.json
    assert set(task) >= MEMBERS
    assert task["status"] == "queued"
    assert response.headers["Location"] == f"/tasks/{task['task_id']}"
    assert response.headers["Task-Id"] == task["task_id"]
    assert client.get(response.headers["Location"]).json["task_id"] == task["task_id"]


@pytest.mark.parametrize("prefer", ["respond-async; foo=bar", 'respond-async;a;b="c", handling=lenient', "Respond-Async ;x=1"])
def test_a_preference_with_parameters(client: FlaskClient, prefer: str) -> None:
    response = post(client, headers={"Prefer": prefer})
    assert response.status_code == 202
    assert response.headers["Preference-Applied"] == "respond-async"


@pytest.mark.parametrize("where", ["form", "metadata"])
@pytest.mark.parametrize("path", ["/inference", "/inference/batch"])
def test_a_mode_and_a_preference_that_differ(client: FlaskClient, path: str, where: str) -> None:
    data = raw_form(mode="sync") if where == "form" else raw_form(metadata={"mode": "sync"})
    problem = assert_problem(post(client, data, path, headers={"Prefer": "respond-async"}), 400, "invalid_request", field="mode")
    assert "Prefer" in problem["detail"]


def test_a_preference_that_was_followed_is_said_so(client: FlaskClient) -> None:
    response = post(client, headers={"Prefer": "respond-async"})
    assert response.headers["Preference-Applied"] == "respond-async"


def test_a_preference_that_was_not_followed_is_not_said_to_be(client: FlaskClient, worker: FakeWorker) -> None:
    """RFC 7240, section 3: the header names the preferences that were applied."""
    response = post(client, headers={"Prefer": "handling=lenient"})
    assert response.status_code == 200
    assert "handling" not in response.headers.get("Preference-Applied", "")


@pytest.mark.parametrize("prefer", ["wait=30", "respond-async, wait=30", "wait=30, respond-async", 'wait="30"', "wait = 30"])
def test_a_result_that_comes_while_the_client_waits_is_the_answer(client: FlaskClient, worker: FakeWorker, prefer: str) -> None:
    response = post(client, headers={"Prefer": prefer})
    assert response.status_code == 200
    assert response.json["response"]["class"] == 7


@pytest.mark.parametrize("prefer", ["wait=0.05", "respond-async, wait=0.05"])
def test_who_does_not_want_to_wait_longer_gets_the_task(client: FlaskClient, prefer: str) -> None:
    response = post(client, headers={"Prefer": prefer})
    assert response.status_code == 202
    assert response.json["status"] == "queued"


def test_no_wait_is_longer_than_the_longest(make_app: Any) -> None:
    client = make_app(api={"max_wait_s": 0.1}).test_client()
    response = post(client, headers={"Prefer": "wait=3000"})
    assert response.status_code == 202
    assert response.headers["Preference-Applied"] == "wait=0.1"


@pytest.mark.parametrize("prefer", ["wait=soon", "wait=-1", "return=minimal", ""])
def test_preferences_that_say_nothing_are_ignored(client: FlaskClient, worker: FakeWorker, prefer: str) -> None:
    assert post(client, headers={"Prefer": prefer}).status_code == 200


def test_a_failed_task_ends_a_wait(client: FlaskClient, worker: FakeWorker) -> None:
    response = post(client, form(raw_image(float("inf")), metadata=RAW_METADATA), headers={"Prefer": "wait=30"})
    assert_problem(response, 400, "invalid_image")


def test_deadlines_differ_for_who_waits_and_who_does_not(client: FlaskClient, app: Flask, worker: FakeWorker) -> None:
    task_ids = [post_async(client), post(client).json["task_id"], post_async(client, raw_form(deadline_s="77"))]
    records = [services_of(app).store.get(task_id) for task_id in task_ids]
    assert [record.deadline_at_ms - record.created_at_ms for record in records] == [3_600_000, 30_000, 77_000]


def test_a_deadline_may_come_in_metadata(client: FlaskClient, app: Flask) -> None:
    record = services_of(app).store.get(post_async(client, raw_form(metadata={"deadline_s": 5.5})))
    assert record.deadline_at_ms - record.created_at_ms == 5500


def test_who_waits_past_the_deadline_gets_504_when_the_task_has_expired(client: FlaskClient, app: Flask) -> None:
    waiting = Background(lambda: post(app.test_client(), raw_form(deadline_s="0.2", request_id="late")))
    (task_id,) = wait_until(lambda: tasks_of(services_of(app), "late"), "the task")
    wait_until(lambda: services_of(app).store.expire_due(10) == [task_id], "the deadline")
    response = waiting.response()
    assert_problem(response, 504, "deadline_exceeded", task_id=task_id)
    assert response.headers["Location"] == f"/tasks/{task_id}"
    assert client.get(f"/tasks/{task_id}").json["status"] == "expired"


def test_who_waits_past_the_deadline_gets_504_though_nobody_ended_the_task(client: FlaskClient) -> None:
    """No relay runs: after a grace the wait ends by itself, and the task is named."""
    response = post(client, raw_form(deadline_s="0.01"))
    problem = assert_problem(response, 504, WaitTimeout.code)
    assert response.headers["Location"] == f"/tasks/{problem['task_id']}"
    assert client.get(response.headers["Location"]).json["status"] == "queued"


def test_a_canceled_task_ends_the_wait(client: FlaskClient, app: Flask) -> None:
    waiting = Background(lambda: post(app.test_client(), raw_form(request_id="r")))
    (task_id,) = wait_until(lambda: tasks_of(services_of(app), "r"), "the task")
    assert client.delete(f"/tasks/{task_id}").status_code == 200
    assert_problem(waiting.response(), 409, "task_canceled", task_id=task_id)


def test_many_who_wait_each_get_their_own_answer(app: Flask, worker: FakeWorker) -> None:
    worker.gate.clear()
    waiting = [Background(lambda n=n: post(app.test_client(), raw_form(n, request_id=f"r{n}"))) for n in range(8)]
    wait_until(lambda: all(tasks_of(services_of(app), f"r{n}") for n in range(8)), "the tasks")
    worker.gate.set()
    assert [one.response().json["response"]["class"] for one in waiting] == list(range(8))


def test_a_result_that_comes_while_the_reply_channel_is_cut_is_not_missed(
    app: Flask, worker: FakeWorker, redis_client: redis.Redis
) -> None:
    worker.gate.clear()
    waiting = Background(lambda: post(app.test_client()))
    wait_until(lambda: worker.messages, "the running task")
    for connection in redis_client.client_list(_type="pubsub"):
        redis_client.client_kill_filter(_id=connection["id"])
    worker.gate.set()
    assert waiting.response().status_code == 200


def test_a_result_that_is_only_in_the_record_is_found(app: Flask, client: FlaskClient, worker: FakeWorker) -> None:
    """The reply got lost: the records of all tasks with waiting callers are read each second."""
    accept_with(app, replies=Elsewhere(components_of(app).replies))
    assert post(client).status_code == 200


class Elsewhere:
    """The reply router, but for the channel that it names."""

    channel = "nobody listens here"

    def __init__(self, replies: ReplyRouter) -> None:
        self._replies = replies

    def __getattr__(self, name: str) -> Any:
        return getattr(self._replies, name)


def test_waiters_are_forgotten(app: Flask, client: FlaskClient, worker: FakeWorker) -> None:
    post(client)
    post_async(client)
    post(client, headers={"Prefer": "wait=0.01"})
    assert components_of(app).replies._waiters == {}
