"""Query parameters: known to their route, given once and in UTF-8, on every path."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest
from api_rig import RAW_METADATA, FakeWorker, assert_problem, picture, post_batch, raw_form, send, services_of
from flask.testing import FlaskClient

CONTROLLER = "/inference_service_controller"
IMAGES = ["/inference", "/inference_service", "/inference/batch"]


def problem_code(path: str) -> str:
    """The code where a command is wrong before anything else is looked at."""
    return "unknown_command" if path == CONTROLLER else "invalid_request"


#: Operations that look for what the path names before they read the query.
UNKNOWN_FIRST = {("/batches/<batch_id>", "DELETE"), ("/ui/<page>", "GET"), ("/ui/<page>/<subject>", "GET")}


class TestQueries:
    """`test_every_path` finds the paths itself, so that a new one is not forgotten."""

    @pytest.mark.parametrize(
        "query", ["wiat=3", "no%00=1", "x" * 4000 + "=1", "%FF=1", "wait=1&wait=2", "request_id=1&request_id=2"]
    )
    def test_every_path(self, app: Any, client: FlaskClient, query: str) -> None:
        tried = 0
        for rule in app.url_map.iter_rules():
            path = re.sub(r"<(task|batch|erasure)_id>", "a" * 32, rule.rule)
            for method in rule.methods & {"GET", "POST", "DELETE"}:
                response = client.open(f"{path}?{query}", method=method, data=raw_form() if method == "POST" else None)
                if rule.rule == "/tasks":
                    continue  # has a reading of its own
                if (rule.rule, method) in UNKNOWN_FIRST:
                    assert response.status_code == 404
                    continue
                assert response.status_code == 400, (rule.rule, method)
                if rule.rule.startswith("/v2"):
                    assert response.json.keys() == {"error"}, rule.rule
                else:
                    assert response.json["code"] in ("invalid_request", "unknown_command")
                tried += 1
        assert tried >= 10

    def test_a_batch_is_not_canceled_by_a_request_with_a_wrong_one(self, client: FlaskClient) -> None:
        url = post_batch(client, [1], mode="async").json["urls"]["self"]
        assert_problem(client.delete(f"{url}?force=true"), 400, "invalid_request", field="force")
        assert client.get(url).json["status"] == "running"

    def test_what_libraries_add_against_caches(self, client: FlaskClient, worker: FakeWorker, app: Any) -> None:
        assert client.get("/health/live?_=1700000000000").status_code == 200
        for path in IMAGES:
            assert send(client, f"{path}?_=1&_=2", [("metadata", orjson.dumps(RAW_METADATA))]).status_code == 200
        services_of(app).objects.put("a.png", picture("PNG"))
        body = {"items": [{"object": "s3://inference/a.png"}], "command": "predict"}
        assert client.post("/inference/batch?_=1", json=body).status_code == 200
        fields = {"command": "load_new_model", "model_id": "none"}
        assert_problem(client.post(f"{CONTROLLER}?_=1", data=fields), 404, "model_not_found")

    @pytest.mark.parametrize("path", [*IMAGES, CONTROLLER])
    def test_a_parameter_without_a_name(self, client: FlaskClient, path: str) -> None:
        problem = assert_problem(send(client, f"{path}?=x&command=predict", []), 400, problem_code(path))
        if path != CONTROLLER:
            assert problem["detail"] == "a query parameter has no name"

    @pytest.mark.parametrize("query", [b"request_id=%ff%fe", b"request_id=\xff", b"request_id=caf%E9", b"request_id=%ED%A0%80"])
    def test_text_that_is_no_utf_8(self, client: FlaskClient, query: bytes) -> None:
        raw = {"QUERY_STRING": query.decode("latin-1")}
        for path in [*IMAGES, CONTROLLER]:
            response = client.post(path, data=raw_form(), environ_overrides=raw)
            assert_problem(response, 400, "invalid_request", field="request_id")
        for path in ("/tasks", "/health/live", f"/tasks/{'a' * 32}"):
            response = client.get(path, environ_overrides=raw)
            assert_problem(response, 400, "invalid_request", field="request_id")

    def test_a_query_parameter_that_is_near(self, client: FlaskClient) -> None:
        problem = assert_problem(client.get(f"/tasks/{'a' * 32}?wiat=3"), 400, "invalid_request", field="wiat")
        assert "did you mean wait?" in problem["detail"]
        assert "wait" in problem["expected"]
