"""Common parts of all answers: problems as JSON, methods, paths, a store that is down, health."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from api_rig import LISTS, PROBLEM, QUEUE, FakeWorker, MakeApp, accept_with, assert_problem, post, raw_form, services_of
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.exceptions import ImATeapot, UnprocessableEntity

from api.components import components_of
from inference.broker.redis import RedisBroker
from inference.errors import ERRORS_BY_CODE, ServiceUnavailable


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/inference", {"GET", "HEAD", "POST", "OPTIONS"}),
        ("PUT", "/inference_service", {"GET", "HEAD", "POST", "OPTIONS"}),
        ("GET", "/inference_service_controller", {"POST", "OPTIONS"}),
        ("POST", "/tasks/x", {"GET", "HEAD", "DELETE", "OPTIONS"}),
        ("PUT", "/tasks", {"GET", "HEAD", "DELETE", "OPTIONS"}),
        ("POST", "/health/live", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_another_method_is_405_and_says_which_are_allowed(client: FlaskClient, method: str, path: str, allowed: set[str]) -> None:
    response = client.open(path, method=method)
    problem = assert_problem(response, 405, "method_not_allowed")
    assert problem["expected"] == f"one of {', '.join(sorted(allowed))}"
    assert set(response.headers["Allow"].split(", ")) == allowed


@pytest.mark.parametrize("path", ["/nothing", "/inference/", "/tasks/", "/tasks/a/b", "/Inference", "/health", "/favicon.ico"])
def test_an_unknown_path_is_404(client: FlaskClient, path: str) -> None:
    for method in ("GET", "POST"):
        assert_problem(client.open(path, method=method), 404, "not_found")


@pytest.mark.parametrize("path", ["/health//live", "/tasks//x"])
def test_no_answer_is_html(client: FlaskClient, path: str) -> None:
    response = client.get(path)
    assert b"<html" not in response.data
    assert "html" not in (response.content_type or "")


def test_head_is_answered_as_get_without_a_body(client: FlaskClient) -> None:
    response = client.head("/health/live")
    assert (response.status_code, response.data) == (200, b"")


@pytest.mark.parametrize("path", ["/", "/inference", "/inference_service"])
def test_a_get_says_who_answers(app: Flask, client: FlaskClient, path: str) -> None:
    who = client.get(path).json
    digits = services_of(app).models.get("digits")
    assert (who["pipeline_id"], who["served_model"], who["ensemble_mode"], who["sinks"]) == ("default", "digits", False, [])
    assert who["model"] == {"name": "digits", "version": digits.version, "digest": digits.digest}
    assert who["input_shape"] == [8, 8, 1]


@pytest.mark.parametrize("path", ["/inference", "/inference_service"])
def test_a_get_where_images_go_says_it_in_a_sentence_too(client: FlaskClient, path: str) -> None:
    assert "model digits, input 8,8,1; results go to no sink" in client.get(path).json["response"]


def test_the_index_says_what_is_where(client: FlaskClient) -> None:
    index = client.get("/").json
    assert index["models"] == ["digits"]
    assert "POST /inference" in index["paths"]


class TestFaults:
    @pytest.fixture
    def faulty(self, app: Flask) -> FlaskClient:
        def raising(error: Exception) -> Callable[[], None]:
            def view() -> None:
                raise error

            return view

        app.add_url_rule("/bug", "bug", raising(KeyError("secret")))
        app.add_url_rule("/teapot", "teapot", raising(ImATeapot()))
        app.add_url_rule("/unprocessable", "unprocessable", raising(UnprocessableEntity()))
        return app.test_client()

    def test_an_unexpected_error_is_500_and_tells_nothing(self, faulty: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
        response = faulty.get("/bug")
        assert_problem(response, 500, "internal_error")
        assert b"secret" not in response.data
        assert "KeyError: 'secret'" in caplog.text

    @pytest.mark.parametrize("path", ["/teapot", "/unprocessable"])
    def test_what_a_library_refuses_is_400(self, faulty: FlaskClient, path: str) -> None:
        assert_problem(faulty.get(path), 400, "invalid_request")


def test_no_error_is_422() -> None:
    assert 422 not in {kind.status for kind in ERRORS_BY_CODE.values()}


def test_every_error_has_a_code_of_its_own_and_a_title() -> None:
    kinds = list(ERRORS_BY_CODE.values())
    assert len({kind.title for kind in kinds}) == len(kinds)
    assert all(kind.title and "code" in vars(kind) for kind in kinds), "no class has its parent's"


class TestAStoreThatIsDown:
    @pytest.fixture
    def down(self, make_app: Any, tmp_path: Path) -> FlaskClient:
        app = make_app(broker={"url": f"unix://{tmp_path}/nobody.sock"})
        client: FlaskClient = app.test_client()
        return client

    @pytest.mark.parametrize(
        ("method", "path"),
        [("GET", "/tasks/x"), ("GET", "/tasks/x?wait=5"), ("DELETE", "/tasks/x"), ("GET", "/tasks?request_id=x")],
    )
    def test_tasks_are_503(self, down: FlaskClient, method: str, path: str) -> None:
        response = down.open(path, method=method)
        assert_problem(response, 503, "service_unavailable")
        assert int(response.headers["Retry-After"]) >= 1

    @pytest.mark.parametrize("headers", [{}, {"Prefer": "respond-async"}, {"Idempotency-Key": "k"}])
    def test_predictions_are_503_and_leave_nothing(self, down: FlaskClient, tmp_path: Path, headers: dict[str, str]) -> None:
        response = post(down, headers=headers)
        assert_problem(response, 503, "service_unavailable")
        assert int(response.headers["Retry-After"]) >= 1
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]

    def test_a_wrong_request_is_still_told_so(self, down: FlaskClient) -> None:
        assert_problem(post(down, {"command": "predict"}), 400, "invalid_request")

    def test_readiness_names_what_is_missing(self, down: FlaskClient) -> None:
        response = down.get("/health/ready")
        assert response.status_code == 503
        checks = response.json["checks"]
        assert checks["object_store"] == "ok"
        for name in ("task_store", "broker", "model"):
            assert "does not answer" in checks[name]

    def test_liveness_does_not_ask_it(self, down: FlaskClient) -> None:
        assert down.get("/health/live").json == {"status": "live"}


def test_an_object_store_that_is_down_is_503(make_app: Any, tmp_path: Path, redis_client: redis.Redis) -> None:
    (tmp_path / "file").write_bytes(b"")
    client = make_app(uploads={"path": tmp_path / "file"}).test_client()
    response = post(client)
    assert_problem(response, 503, "service_unavailable")
    assert response.headers["Retry-After"] == "5"
    assert sum(redis_client.llen(key) for key in LISTS) == 0
    ready = client.get("/health/ready")
    assert ready.status_code == 503
    assert "local object store" in ready.json["checks"]["object_store"]


class TestABrokerOfItsOwn:
    """The broker is another server than the record store: the record first, then the message."""

    @pytest.fixture
    def separate(self, app: Flask, redis_client: redis.Redis) -> RedisBroker:
        broker = RedisBroker(redis_client, shares_store=False)
        accept_with(app, broker=broker)
        return broker

    @pytest.mark.usefixtures("separate")
    def test_the_message_is_published(self, client: FlaskClient, worker: FakeWorker) -> None:
        assert post(client).status_code == 200
        assert len(worker.messages) == 1

    def test_a_message_that_cannot_be_published_leaves_no_task(
        self, app: Flask, client: FlaskClient, separate: RedisBroker, tmp_path: Path
    ) -> None:
        class Down(RedisBroker):
            def publish(self, *_: Any, **_options: Any) -> None:
                raise ServiceUnavailable("the broker does not answer", retry_after_s=1)

        accept_with(app, broker=Down(separate._redis, shares_store=False))
        assert_problem(post(client, raw_form(request_id="r")), 503, "service_unavailable")
        assert client.get("/tasks?request_id=r").json == {"tasks": []}
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
        assert components_of(app).replies._waiters == {}


class TestReadiness:
    def test_without_a_worker(self, client: FlaskClient) -> None:
        response = client.get("/health/ready")
        assert response.status_code == 503
        body = response.json
        assert body["status"] == "not ready"
        assert body["checks"] == {
            "task_store": "ok",
            "broker": "ok",
            "object_store": "ok",
            "model": "no worker has digits loaded (0 workers are up)",
        }

    def test_with_a_worker(self, client: FlaskClient, announce: Callable[[], None]) -> None:
        announce()
        response = client.get("/health/ready")
        assert response.status_code == 200
        assert response.json["status"] == "ready"
        assert set(response.json["checks"].values()) == {"ok"}

    def test_without_a_worker_where_waiting_tasks_start_workers(
        self, make_app: MakeApp, redis_client: redis.Redis, key_prefix: str
    ) -> None:
        client = make_app(api={"ready_without_workers": True}).test_client()

        response = client.get("/health/ready")
        accepted = post(client, raw_form(), headers={"Prefer": "respond-async"})

        assert response.status_code == 200
        assert response.json["checks"] == {"task_store": "ok", "broker": "ok", "object_store": "ok"}
        assert accepted.status_code == 202
        assert redis_client.zcard(f"{key_prefix}:waiting:{QUEUE}") == 1

    def test_a_worker_that_leaves(self, app: Flask, client: FlaskClient, announce: Callable[[], None]) -> None:
        announce()
        services_of(app).presence.leave("test-worker")
        assert client.get("/health/ready").status_code == 503


class TestLooking:
    """GET changes nothing, whatever it asks for."""

    @pytest.mark.parametrize(
        "path",
        [
            "/",
            "/inference",
            "/health/live",
            "/health/ready",
            "/tasks/unknown",
            "/tasks?request_id=unknown",
            "/batches/unknown",
        ],
    )
    def test_no_folder_and_no_key_is_made(
        self, make_app: Any, redis_client: redis.Redis, key_prefix: str, tmp_path: Path, path: str
    ) -> None:
        client = make_app(data_dir=tmp_path / "data" / "below").test_client()

        def there() -> tuple[list[Path], list[Any]]:
            return sorted(tmp_path.rglob("*")), sorted(redis_client.scan_iter(f"*{key_prefix}*", count=1000))

        before = there()
        response = client.get(path)
        assert response.status_code in (200, 404, 503)
        assert there() == before

    def test_a_folder_that_the_first_upload_makes_is_no_reason_to_be_not_ready(
        self, make_app: Any, announce: Callable[[], None], tmp_path: Path
    ) -> None:
        app = make_app(data_dir=tmp_path / "data" / "below")
        announce()
        response = app.test_client().get("/health/ready")
        assert (response.status_code, response.json["checks"]["object_store"]) == (200, "ok")
        assert "data" not in [path.name for path in tmp_path.iterdir()]


def test_problems_are_json_with_a_newline_at_the_end(client: FlaskClient) -> None:
    response = client.get("/tasks/unknown")
    assert response.content_type == PROBLEM
    assert response.data.endswith(b"}\n")
    assert orjson.loads(response.data)["status"] == 404
