"""/tasks: the task object, waiting for its end, finding and canceling tasks."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pytest
from api_rig import (
    OWNER,
    Background,
    FakeWorker,
    assert_problem,
    failure,
    post,
    post_async,
    raw_form,
    services_of,
    vector,
    wait_until,
)
from flask import Flask
from flask.testing import FlaskClient

from api.components import components_of
from inference.errors import PredictionFailed

TIMINGS = {"store_ms", "queue_ms", "fetch_ms", "decode_ms", "batch_wait_ms", "predict_ms", "commit_ms"}


def time_of(text: str) -> datetime:
    assert text.endswith("Z")
    return datetime.fromisoformat(text)


class TestTheTask:
    def test_queued(self, client: FlaskClient, app: Flask) -> None:
        task_id = post_async(client, raw_form(request_id="mine"))
        task = client.get(f"/tasks/{task_id}").json
        spec = services_of(app).models.get("digits")
        assert time_of(task["deadline_at"]).timestamp() - time_of(task["created_at"]).timestamp() == pytest.approx(3600)
        assert set(task["timings"]) == {"store_ms"}
        assert task.pop("timings")["store_ms"] > 0
        assert {task.pop("created_at"), task.pop("deadline_at")}
        assert set(task.pop("urls").values()) == {f"/tasks/{task_id}"}
        assert task == {
            "task_id": task_id,
            "request_id": "mine",
            "status": "queued",
            "model": {"name": "digits", "version": "1", "digest": spec.digest},
            "started_at": None,
            "finished_at": None,
            "result": None,
            "error": None,
            "deliveries": [],
            "queue": {"position": 0, "eta_s": None},
            "attempts": 0,
            "priority": 0,
            "batch_id": None,
            "replay_of": None,
            "batch_size": None,
        }

    def test_its_position_is_how_many_are_before_it(self, client: FlaskClient) -> None:
        task_ids = [post_async(client) for _ in range(3)]
        assert [client.get(f"/tasks/{task_id}").json["queue"]["position"] for task_id in task_ids] == [0, 1, 2]

    def test_its_eta_comes_from_what_ended_while_others_waited(self, client: FlaskClient, idle_worker: FakeWorker) -> None:
        first = post_async(client)
        assert client.get(f"/tasks/{first}").json["queue"] == {"position": 0, "eta_s": None}
        idle_worker.work_off()
        waiting = [post_async(client) for _ in range(2)]

        def etas() -> list[float] | None:
            """Known once the first of them has waited for a second, and while what ended before counts."""
            found = [client.get(f"/tasks/{task_id}").json["queue"]["eta_s"] for task_id in waiting]
            return found if None not in found else None

        soon, later = wait_until(etas, "a rate")
        assert later == pytest.approx(2 * soon, rel=0.2)

    def test_running(self, client: FlaskClient, app: Flask) -> None:
        task_id = post_async(client)
        services_of(app).store.lease(OWNER, [task_id])
        services_of(app).store.start(OWNER, [task_id])
        task = client.get(f"/tasks/{task_id}").json
        assert (task["status"], task["attempts"], task["queue"], task["result"]) == ("running", 1, None, None)
        assert time_of(task["started_at"]) >= time_of(task["created_at"])
        assert task["finished_at"] is None

    def test_succeeded(self, client: FlaskClient, idle_worker: FakeWorker) -> None:
        task_id = post_async(client, raw_form(4))
        idle_worker.work_off()
        task = client.get(f"/tasks/{task_id}").json
        assert (task["status"], task["error"], task["queue"]) == ("succeeded", None, None)
        assert (task["attempts"], task["batch_size"]) == (1, 1)
        assert set(task["result"]) == {"class", "label", "confidence_level", "prediction"}
        assert (task["result"]["class"], task["result"]["label"]) == (4, "4")
        np.testing.assert_allclose(task["result"]["prediction"], vector(4), rtol=1e-6)
        assert set(task["timings"]) == TIMINGS
        assert time_of(task["created_at"]) <= time_of(task["started_at"]) <= time_of(task["finished_at"])

    def test_failed(self, client: FlaskClient, idle_worker: FakeWorker) -> None:
        idle_worker.answer = lambda *_: failure(PredictionFailed("the model raised ValueError"))
        task_id = post_async(client)
        idle_worker.work_off()
        task = client.get(f"/tasks/{task_id}").json
        assert (task["status"], task["result"], task["batch_size"]) == ("failed", None, 0)
        assert task["error"] == {
            "type": "urn:problem-type:inference:prediction_failed",
            "title": "The prediction failed",
            "status": 500,
            "code": "prediction_failed",
            "detail": "the model raised ValueError",
        }

    def test_expired(self, client: FlaskClient, app: Flask) -> None:
        task_id = post_async(client, raw_form(deadline_s="0.01"))
        wait_until(lambda: services_of(app).store.expire_due(10) == [task_id], "the deadline")
        task = client.get(f"/tasks/{task_id}").json
        assert (task["status"], task["error"]["code"], task["error"]["status"]) == ("expired", "deadline_exceeded", 504)
        assert task["queue"] is None

    def test_its_deliveries(self, make_app: Any, redis_client: Any, key_prefix: str) -> None:
        app = make_app(sinks=("jsonl",))
        client = app.test_client()
        task_id = post_async(client)
        assert client.get(f"/tasks/{task_id}").json["deliveries"] == []
        FakeWorker(services_of(app), redis_client).work_off()
        assert client.get(f"/tasks/{task_id}").json["deliveries"] == [{"sink": "jsonl", "status": "pending"}]
        ((entry, _),) = redis_client.xrange(f"{key_prefix}:outbox:jsonl")
        redis_client.xgroup_create(f"{key_prefix}:outbox:jsonl", "relay", id="0")
        services_of(app).store.confirm_deliveries("jsonl", [(entry, task_id)])
        assert client.get(f"/tasks/{task_id}").json["deliveries"] == [{"sink": "jsonl", "status": "delivered"}]

    @pytest.mark.parametrize("path", ["/tasks/unknown", "/tasks/unknown?wait=10", "/tasks/%00", "/tasks/a:b", "/tasks/ü"])
    def test_unknown(self, client: FlaskClient, path: str) -> None:
        problem = assert_problem(client.get(path), 404, "task_not_found")
        assert problem["task_id"] in problem["detail"]


class TestWaiting:
    def test_until_the_end(self, client: FlaskClient, app: Flask, worker: FakeWorker) -> None:
        worker.gate.clear()
        task_id = post_async(client, raw_form(3))
        waiting = Background(lambda: app.test_client().get(f"/tasks/{task_id}?wait=30"))
        wait_until(lambda: components_of(app).replies._waiters, "the waiter")
        assert not waiting.is_done
        worker.gate.set()
        task = waiting.response().json
        assert (task["status"], task["result"]["class"]) == ("succeeded", 3)
        assert components_of(app).replies._waiters == {}

    def test_several_for_one_task(self, client: FlaskClient, app: Flask, worker: FakeWorker) -> None:
        worker.gate.clear()
        task_id = post_async(client)
        waiting = [Background(lambda: app.test_client().get(f"/tasks/{task_id}?wait=30")) for _ in range(3)]
        wait_until(lambda: len(components_of(app).replies._waiters.get(task_id, ())) == 3, "the waiters")
        worker.gate.set()
        assert [one.response().json["status"] for one in waiting] == ["succeeded"] * 3

    def test_at_another_api_process(self, client: FlaskClient, make_app: Any, worker: FakeWorker) -> None:
        """The reply goes to the process that accepted the task; this one reads the record each second."""
        worker.gate.clear()
        task_id = post_async(client)
        other = make_app()
        waiting = Background(lambda: other.test_client().get(f"/tasks/{task_id}?wait=30"))
        wait_until(lambda: components_of(other).replies._waiters, "the waiter")
        worker.gate.set()
        assert waiting.response().json["status"] == "succeeded"

    def test_no_longer_than_asked(self, client: FlaskClient) -> None:
        task_id = post_async(client)
        assert client.get(f"/tasks/{task_id}?wait=0.05").json["status"] == "queued"

    def test_no_longer_than_allowed(self, make_app: Any) -> None:
        client = make_app(api={"max_wait_s": 0.1}).test_client()
        task_id = post_async(client)
        assert client.get(f"/tasks/{task_id}?wait=1e6").json["status"] == "queued"
        for wrong in ("1_0", "%D9%A3", "", "-1", "inf"):
            assert_problem(client.get(f"/tasks/{task_id}?wait={wrong}"), 400, "invalid_request", field="wait")

    def test_for_a_task_that_has_ended(self, client: FlaskClient, idle_worker: FakeWorker) -> None:
        task_id = post_async(client)
        idle_worker.work_off()
        assert client.get(f"/tasks/{task_id}?wait=30").json["status"] == "succeeded"

    @pytest.mark.parametrize("wait", ["", "soon", "-1", "nan", "inf", "1s"])
    def test_for_no_time(self, client: FlaskClient, wait: str) -> None:
        task_id = post_async(client)
        assert_problem(client.get(f"/tasks/{task_id}?wait={wait}"), 400, "invalid_request", field="wait")


class TestFinding:
    def test_the_tasks_of_a_request_id_newest_first(self, client: FlaskClient) -> None:
        task_ids = [post_async(client, raw_form(n, request_id="mine")) for n in range(3)]
        post_async(client, raw_form(request_id="other"))
        tasks = client.get("/tasks?request_id=mine").json["tasks"]
        assert [task["task_id"] for task in tasks] == task_ids[::-1]
        assert {task["request_id"] for task in tasks} == {"mine"}

    def test_by_any_text(self, client: FlaskClient) -> None:
        task_id = post_async(client, raw_form(request_id="a b/ü&=#"))
        response = client.get("/tasks", query_string={"request_id": "a b/ü&=#"})
        assert [task["task_id"] for task in response.json["tasks"]] == [task_id]

    def test_none(self, client: FlaskClient) -> None:
        response = client.get("/tasks?request_id=unknown")
        assert (response.status_code, response.json) == (200, {"tasks": []})
        assert "Link" not in response.headers

    @pytest.mark.parametrize("name", ["request_id", "model"])
    def test_by_an_empty_text(self, client: FlaskClient, name: str) -> None:
        """A script whose variable is not set gets no tasks of others."""
        problem = assert_problem(client.get(f"/tasks?{name}="), 400, "invalid_request", field=name)
        assert problem["detail"] == f"{name} is empty"


class TestCanceling:
    def test_a_queued_task(self, client: FlaskClient, idle_worker: FakeWorker) -> None:
        task_id = post_async(client)
        response = client.delete(f"/tasks/{task_id}")
        assert response.status_code == 200
        task = response.json
        assert (task["task_id"], task["status"], task["result"]) == (task_id, "canceled", None)
        assert task["error"]["code"] == "task_canceled"
        idle_worker.work_off()
        assert client.get(f"/tasks/{task_id}").json["status"] == "canceled"

    def test_a_running_task_discards_its_result(self, client: FlaskClient, worker: FakeWorker) -> None:
        worker.gate.clear()
        task_id = post_async(client)
        wait_until(lambda: client.get(f"/tasks/{task_id}").json["status"] == "running", "the running task")
        assert client.delete(f"/tasks/{task_id}").json["status"] == "canceled"
        worker.gate.set()
        post(client)  # after it the worker has committed what it ran
        assert client.get(f"/tasks/{task_id}").json["status"] == "canceled"

    def test_a_task_that_has_ended(self, client: FlaskClient, idle_worker: FakeWorker) -> None:
        task_id = post_async(client)
        idle_worker.work_off()
        problem = assert_problem(client.delete(f"/tasks/{task_id}"), 409, "task_already_finished", task_id=task_id)
        assert "succeeded" in problem["detail"]

    def test_twice(self, client: FlaskClient) -> None:
        task_id = post_async(client)
        client.delete(f"/tasks/{task_id}")
        assert_problem(client.delete(f"/tasks/{task_id}"), 409, "task_already_finished", task_id=task_id)

    def test_an_unknown_task(self, client: FlaskClient) -> None:
        assert_problem(client.delete("/tasks/unknown"), 404, "task_not_found", task_id="unknown")
