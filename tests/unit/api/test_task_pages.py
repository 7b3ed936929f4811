"""GET /tasks: the tasks of a request id, a page at a time."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import urljoin

import pytest
from api_rig import FakeWorker, assert_problem, post_async, raw_form, services_of
from flask import Flask
from flask.testing import FlaskClient
from redis.connection import AbstractConnection
from support.samples import a_request

from inference.errors import shown_name

REQUEST_ID = "a b/ü&=#"


@pytest.fixture
def task_ids(client: FlaskClient) -> list[str]:
    return [post_async(client, raw_form(n, request_id=REQUEST_ID)) for n in range(5)]


def test_by_cursor(client: FlaskClient, task_ids: list[str]) -> None:
    found, cursor = [], None
    for size in (2, 2, 1):
        query = {"request_id": REQUEST_ID, "limit": 2} | ({"cursor": cursor} if cursor else {})
        page = client.get("/tasks", query_string=query).json
        assert len(page["tasks"]) == size
        found += [task["task_id"] for task in page["tasks"]]
        cursor = page.get("next_cursor")
    assert (found, cursor) == (task_ids[::-1], None)


@pytest.mark.parametrize("above", ["", "/ml"])
def test_by_link(client: FlaskClient, idle_worker: FakeWorker, task_ids: list[str], above: str) -> None:
    """A reference relative to the request, so that it is right below whatever path a proxy adds."""
    idle_worker.work_off()
    url: str | None = f"https://host{above}/tasks?request_id=a%20b/%C3%BC%26%3D%23&limit=2&prediction=true"
    pages = []
    while url:
        assert url.startswith(f"https://host{above}/tasks?")
        response = client.get(url.removeprefix(f"https://host{above}"))
        pages.append([task["task_id"] for task in response.json["tasks"]])
        assert all("prediction" in task["result"] for task in response.json["tasks"])
        link = response.headers.get("Link")
        url = link and urljoin(url, re.fullmatch(r'<(\?[^>]+)>; rel="next"', link)[1])
    assert pages == [[task_ids[4], task_ids[3]], [task_ids[2], task_ids[1]], [task_ids[0]]]


def test_of_fifty_unless_said_otherwise(client: FlaskClient, app: Flask) -> None:
    for _ in range(101):
        services_of(app).store.accept(a_request(request_id="many"), enqueue=None, max_queue_depth=0)
    page = client.get("/tasks?request_id=many").json
    assert len(page["tasks"]) == 50
    for limit, size in ((1, 1), (100, 100), (101, 101), (500, 101)):
        assert len(client.get(f"/tasks?request_id=many&limit={limit}").json["tasks"]) == size


def test_vectors_come_when_they_are_asked_for(client: FlaskClient, idle_worker: FakeWorker, task_ids: list[str]) -> None:
    idle_worker.work_off()
    query = {"request_id": REQUEST_ID}
    without, *same = [
        client.get("/tasks", query_string=query | more).json["tasks"]
        for more in ({}, {"prediction": "false"}, {"prediction": False})
    ]
    assert same == [without] * 2
    asked_for, *same = [
        client.get("/tasks", query_string=query | {"prediction": prediction}).json["tasks"] for prediction in ("true", True, 1)
    ]
    assert same == [asked_for] * 2
    alone = [client.get(f"/tasks/{task_id}").json for task_id in task_ids[::-1]]
    assert asked_for == alone
    for task in alone:
        assert len(task["result"].pop("prediction")) == 10
    assert without == alone


def test_the_places_of_all_that_wait_are_told(client: FlaskClient, task_ids: list[str]) -> None:
    tasks = client.get("/tasks", query_string={"request_id": REQUEST_ID}).json["tasks"]
    assert [task["queue"] for task in tasks] == [{"position": number, "eta_s": None} for number in (4, 3, 2, 1, 0)]
    assert tasks == [client.get(f"/tasks/{task_id}").json for task_id in task_ids[::-1]]


def test_redis_is_asked_as_often_for_many_tasks_as_for_one(
    client: FlaskClient, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        request = a_request(request_id="many", queue=f"predict.{number % 2}")
        services_of(app).store.accept(request, enqueue=None, max_queue_depth=0)
    client.get("/tasks?request_id=many")  # the server knows the scripts
    trips: list[int] = []
    send = AbstractConnection.send_packed_command

    def counted(connection: AbstractConnection, *arguments: Any, **options: Any) -> None:
        trips.append(len(trips))
        send(connection, *arguments, **options)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", counted)
    for limit in (1, 40):
        trips.clear()
        assert len(client.get(f"/tasks?request_id=many&limit={limit}").json["tasks"]) == limit
        assert len(trips) == 3


@pytest.mark.parametrize("limit", ["0", "-1", "501", "", "ten", "1.5", "1e2", " 5", "+5", "\u0665", "9" * 400])
def test_limits_that_are_none(client: FlaskClient, limit: str) -> None:
    response = client.get("/tasks", query_string={"request_id": "r", "limit": limit})
    problem = assert_problem(response, 400, "invalid_request", field="limit")
    assert "1 to 500" in problem["expected"]
    assert len(response.data) < 1000


@pytest.mark.parametrize("cursor", ["", "2", "next", "-000000000000001", "000000000000000G", "0" * 17, "x" * 3000, "\0", "ü"])
def test_cursors_that_are_none(client: FlaskClient, cursor: str) -> None:
    response = client.get("/tasks", query_string={"request_id": "r", "cursor": cursor})
    problem = assert_problem(response, 400, "invalid_request", field="cursor")
    assert "next_cursor" in problem["expected"]
    assert len(response.data) < 1000


@pytest.mark.parametrize("cursor", ["0" * 16, "f" * 16])
def test_cursors_before_the_first_and_after_the_last(client: FlaskClient, task_ids: list[str], cursor: str) -> None:
    page = client.get("/tasks", query_string={"request_id": REQUEST_ID, "cursor": cursor}).json
    assert [task["task_id"] for task in page["tasks"]] == (task_ids[::-1] if cursor[0] == "f" else [])
    assert "next_cursor" not in page


@pytest.mark.parametrize("prediction", ["", "yes", "2", "prediction"])
def test_prediction_that_is_neither_true_nor_false(client: FlaskClient, prediction: str) -> None:
    assert_problem(client.get(f"/tasks?request_id=r&prediction={prediction}"), 400, "invalid_request", field="prediction")


@pytest.mark.parametrize("name", ["page", "Limit", "wait", "x" * 3000])
def test_what_is_no_parameter(client: FlaskClient, name: str) -> None:
    response = client.get("/tasks", query_string={"request_id": "r", name: "2"})
    problem = assert_problem(response, 400, "invalid_request", field=shown_name(name))
    assert problem["expected"] == "one of cursor, limit, model, owner, prediction, request_id, since, status"
    assert len(response.data) < 1000


@pytest.mark.parametrize("name", ["request_id", "limit", "cursor", "prediction"])
def test_what_is_given_twice(client: FlaskClient, name: str) -> None:
    response = client.get(f"/tasks?request_id=r&limit=5&{name}=5&{name}=6")
    assert_problem(response, 400, "invalid_request", field=name)


class TestFilters:
    def test_all_tasks_newest_first(self, client: FlaskClient, task_ids: list[str]) -> None:
        other = post_async(client, raw_form(request_id="other"))
        assert _ids(client, {}) == [other, *task_ids[::-1]]
        assert _ids(client, {"model": "unknown"}) == []
        assert len(_ids(client, {"model": client.get("/").json["served_model"]})) == 6

    def test_by_status(self, client: FlaskClient, idle_worker: FakeWorker, task_ids: list[str]) -> None:
        client.delete(f"/tasks/{task_ids[0]}")
        idle_worker.work_off()
        waiting = post_async(client)
        assert _ids(client, {"status": "queued"}) == [waiting]
        assert _ids(client, {"status": "canceled,queued"}) == [waiting, task_ids[0]]
        page = client.get("/tasks?status=succeeded&limit=2")
        assert [task["task_id"] for task in page.json["tasks"]] == [task_ids[4], task_ids[3]]
        assert page.json["next"] == f"/tasks?status=succeeded&limit=2&cursor={page.json['next_cursor']}"
        following = client.get(page.json["next"]).json
        assert [task["task_id"] for task in following["tasks"]] == [task_ids[2], task_ids[1]]

    def test_since_a_time(self, client: FlaskClient, task_ids: list[str]) -> None:
        created_at = client.get(f"/tasks/{task_ids[2]}").json["created_at"]
        seconds = datetime.fromisoformat(created_at).timestamp()
        in_paris = datetime.fromisoformat(created_at).astimezone(timezone(timedelta(hours=1))).isoformat()
        expected = _ids(client, {"since": created_at})
        assert set(expected) >= set(task_ids[2:])
        for since in (in_paris, in_paris.replace("+", " "), created_at.replace("T", " "), f"{seconds:.3f}"):
            assert _ids(client, {"since": since}) == expected
        assert _ids(client, {"since": "0"}) == task_ids[::-1]
        assert _ids(client, {"since": f"{seconds + 1000:.0f}"}) == []

    @pytest.mark.parametrize(
        "since", ["", "today", "-5", "2026-01-31", "2026-01-31T12:00:00", "2026-02-30T12:00:00Z", "2026-01-31T25:00:00Z", "1e9"]
    )
    def test_times_that_are_none(self, client: FlaskClient, since: str) -> None:
        problem = assert_problem(client.get("/tasks", query_string={"since": since}), 400, "invalid_request", field="since")
        assert "2026-01-31T12:00:00Z" in problem["expected"]

    @pytest.mark.parametrize("status", ["", "Queued", "done", "queued,", "queued|running"])
    def test_statuses_that_are_none(self, client: FlaskClient, status: str) -> None:
        response = client.get("/tasks", query_string={"status": status})
        problem = assert_problem(response, 400, "invalid_request", field="status")
        assert problem["expected"].startswith("queued, running, succeeded, failed, canceled, expired")


def _ids(client: FlaskClient, query: dict[str, str]) -> list[str]:
    return [task["task_id"] for task in client.get("/tasks", query_string=query).json["tasks"]]
