"""Ids in paths that no task or batch can have: 404, without a look at the record store, and in no header."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from api_rig import FakeWorker, assert_problem, failure, post
from flask import Flask
from flask.testing import FlaskClient

from api.security.headers import REQUEST_ID, SECURITY_HEADERS
from inference.errors import InferenceError, ObjectNotFound, TaskAlreadyFinished

IDS = {
    "a header": "%0d%0ax",
    "a header of its own": "%0d%0aSet-Cookie:%20a=b",
    "a line": "x%0a",
    "nothing": "%00",
    "other letters": "%C3%BC",
    "no letters": "%FF%FE",
    "a direction": "%E2%80%AE",
    "spaces": "%20%20",
    "a key": "a:b",
    "long": "x" * 10_000,
    "a little too long": "x" * 129,
    "a dot": "..%20",
    "a pattern": "*",
    "an escape": "%1b[31m",
}
CALLS = [
    *(("GET", f"/{kind}/{{}}") for kind in ("tasks", "batches")),
    *(("GET", f"/{kind}/{{}}?wait=5") for kind in ("tasks", "batches")),
    *(("DELETE", f"/{kind}/{{}}") for kind in ("tasks", "batches")),
]


@pytest.mark.parametrize("sent", IDS.values(), ids=IDS)
@pytest.mark.parametrize(("method", "path"), CALLS)
def test_it_is_unknown(make_app: Any, tmp_path: Path, method: str, path: str, sent: str) -> None:
    client = make_app(broker={"url": f"unix://{tmp_path}/nobody.sock"}).test_client()
    response = client.open(path.format(sent), method=method)
    assert_problem(response, 404, "task_not_found" if "tasks" in path else "batch_not_found")
    assert len(response.data) < 1000
    common = {name for name, _ in SECURITY_HEADERS} | {REQUEST_ID}
    assert set(response.headers.keys()) - common == {"Content-Type", "Content-Length"}
    assert "\x1b" not in response.text
    assert "\\u001b" not in response.text


@pytest.mark.parametrize("task_id", ["x", "0f8fad5b-d9cb-469f-a165-70867728950e.7", "MY_cat-1", "7" * 128])
def test_ids_of_celery_clients_are_looked_for(client: FlaskClient, task_id: str) -> None:
    for kind in ("task", "batch"):
        path = {"task": "tasks", "batch": "batches"}[kind]
        response = client.get(f"/{path}/{task_id}")
        assert_problem(response, 404, f"{kind}_not_found", **{f"{kind}_id": task_id})
        assert "Location" not in response.headers


def test_an_error_of_a_known_task_says_where_it_is(client: FlaskClient, worker: FakeWorker) -> None:
    worker.answer = lambda *_: failure(ObjectNotFound("gone"))
    response = post(client)
    problem = assert_problem(response, 404, "object_not_found")
    assert response.headers["Location"] == f"/tasks/{problem['task_id']}"


@pytest.mark.parametrize("unsafe", ["a\r\nb", "ü", "", "a/b", "x" * 129])
def test_no_error_puts_an_unsafe_id_into_a_header(app: Flask, unsafe: str) -> None:
    errors: list[InferenceError] = [TaskAlreadyFinished("x", task_id=unsafe), TaskAlreadyFinished("x", batch_id=unsafe)]
    for number, error in enumerate(errors):

        def view(error: InferenceError = error) -> None:
            raise error

        app.add_url_rule(f"/raise{number}", f"raise{number}", view)
    for number in range(len(errors)):
        response = app.test_client().get(f"/raise{number}")
        assert_problem(response, 409, "task_already_finished")
        assert "Location" not in response.headers


@pytest.mark.parametrize(
    "prefer", ["wait=\t5", 'wait  =  "5"', "wait=5\x85", "respond-async, wait=5, x=\x1b", "wait=" + "9" * 4000]
)
def test_what_is_repeated_of_a_preference(client: FlaskClient, worker: FakeWorker, prefer: str) -> None:
    response = post(client, headers={"Prefer": prefer})
    assert response.status_code == 200 or "respond-async" in prefer
    assert response.headers.get("Preference-Applied", "wait=5") in ("wait=5", "respond-async, wait=5", "respond-async")
