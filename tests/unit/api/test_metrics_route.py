"""GET /metrics, and what the API counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from api_rig import RAW_METADATA, FakeWorker, MakeApp, assert_problem, form, post, post_async, post_batch, raw_image
from event_reading import Watch
from flask import Flask
from flask.testing import FlaskClient
from key_rig import bearer, write_keys
from support.metrics import Metrics
from support.promtool import check_metrics
from support.real_servers import NOBODY

from inference.errors import Overloaded

Counted = Callable[..., float]


@pytest.fixture
def counted(client: FlaskClient) -> Counted:
    """Growth of a counter since the test began: the tests of a run share a process."""
    before = Metrics(client.get("/metrics").text)
    return lambda name, **labels: Metrics(client.get("/metrics").text).value(name, **labels) - before.value(name, **labels)


def test_is_text_that_promtool_accepts(repository: Path, client: FlaskClient, worker: FakeWorker) -> None:
    post(client)
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.content_type.startswith("text/plain; version=")
    check_metrics(repository, response.data)


def test_has_no_query(client: FlaskClient) -> None:
    assert_problem(client.get("/metrics?name=x"), 400, "invalid_request")


def test_requests_are_counted_by_route_method_and_code(client: FlaskClient, counted: Counted) -> None:
    task_id = post_async(client)
    for _ in range(2):
        client.get(f"/tasks/{task_id}")
    client.get("/tasks/0123456789abcdef0123456789abcdef")
    client.head(f"/tasks/{task_id}")
    client.delete("/health/live")

    assert counted("http_requests_total", route="/inference", method="POST", code="202") == 1
    assert counted("http_requests_total", route="/tasks/{task_id}", method="GET", code="200") == 2
    assert counted("http_requests_total", route="/tasks/{task_id}", method="GET", code="404") == 1
    assert counted("http_requests_total", route="/tasks/{task_id}", method="HEAD", code="200") == 1
    assert counted("http_requests_total", route="other", method="DELETE", code="405") == 1
    assert counted("http_request_duration_seconds_count", route="/tasks/{task_id}") == 4


def test_paths_and_methods_that_clients_make_up_make_no_time_series(client: FlaskClient, counted: Counted) -> None:
    for number in range(3):
        client.get(f"/made-up-{number}")
        client.open("/health/live", method=f"MADEUP{number}")
    client.get("/health/live", headers={"Host": "a..b"})
    assert counted("http_requests_total", route="other", method="GET", code="404") == 3
    assert counted("http_requests_total", route="other", method="other", code="405") == 3
    found = Metrics(client.get("/metrics").text).labels("http_requests_total")
    assert "made-up" not in str(found).lower()
    assert "MADEUP" not in str(found)


def test_requests_that_are_refused_before_their_route_count(make_app: MakeApp) -> None:
    client = make_app(api={"allowed_hosts": ["good.example"]}).test_client()
    headers = {"Host": "good.example"}
    before = Metrics(client.get("/metrics", headers=headers).text)
    assert_problem(client.get("/health/live", headers={"Host": "evil.example"}), 421, "misdirected_request")
    after = Metrics(client.get("/metrics", headers=headers).text)
    labels = {"route": "other", "method": "GET", "code": "421"}
    assert after.value("http_requests_total", **labels) - before.value("http_requests_total", **labels) == 1


def test_accepted_tasks_are_counted_by_model(client: FlaskClient, counted: Counted) -> None:
    post_async(client)
    answer = post_batch(client, [1, 2, 3, b"no image"], headers={"Prefer": "respond-async"})
    assert answer.status_code == 202, answer.data
    assert counted("tasks_accepted_total", model="digits") == 4
    assert counted("tasks_refused_total", reason="invalid_image") == 1


def test_a_task_that_is_found_by_its_key_is_not_accepted_again(client: FlaskClient, counted: Counted) -> None:
    headers = {"Prefer": "respond-async", "Idempotency-Key": "a key"}
    for _ in range(2):
        assert post(client, headers=headers).status_code == 202
        assert post_batch(client, [1, 2], headers=headers | {"Idempotency-Key": "another"}).status_code == 202
    assert counted("tasks_accepted_total", model="digits") == 3


def test_refused_images_are_counted_by_the_code_of_the_error(
    client: FlaskClient, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_problem(post(client, form(b"no image", metadata=RAW_METADATA)), 400, "invalid_image")
    assert_problem(post(client, form(raw_image(), metadata={"model": "unknown"})), 404, "model_not_found")

    def refuse(*_: object, **__: object) -> None:
        raise Overloaded("full", retry_after_s=1)

    monkeypatch.setattr("api.acceptance.admission.Admission.check", refuse)
    monkeypatch.setattr("api.acceptance.batch_submission.BatchSubmissions._admit", refuse)
    assert_problem(post(client), 429, "overloaded")
    assert_problem(post_batch(client, [1, 2]), 429, "overloaded")

    assert counted("tasks_refused_total", reason="invalid_image") == 1
    assert counted("tasks_refused_total", reason="model_not_found") == 1
    assert counted("tasks_refused_total", reason="overloaded") == 3
    assert counted("tasks_accepted_total", model="digits") == 0


def test_open_event_streams(client: FlaskClient, watch: Watch) -> None:
    def value() -> float:
        return Metrics(client.get("/metrics").text).value("event_streams")

    before = Metrics(client.get("/metrics").text)
    events = watch(f"/tasks/{post_async(client)}/events")
    assert value() == 1
    events.close()
    assert value() == 0
    route = "/tasks/{task_id}/events"
    after = Metrics(client.get("/metrics").text)
    name = "http_request_duration_seconds_count"
    assert after.value(name, route=route) - before.value(name, route=route) == 1


def test_needs_the_role_read(make_app: MakeApp, tmp_path: Path) -> None:
    keys = write_keys(tmp_path)
    client = make_app(security={"keys_file": keys.file}).test_client()
    assert_problem(client.get("/metrics"), 401, "unauthenticated")
    assert_problem(client.get("/metrics", headers=bearer(keys.predict)), 403, "forbidden")
    assert client.get("/metrics", headers=bearer(keys.read)).status_code == 200


def test_a_record_store_that_is_down_hides_nothing_else(make_app: MakeApp) -> None:
    response = make_app(broker={"url": f"redis://{NOBODY}/0"}).test_client().get("/metrics")
    assert response.status_code == 200
    found = Metrics(response.text)
    assert {labels["store"]: found.value("store_up", **labels) for labels in found.labels("store_up")} == {
        "task_store": 0,
        "broker": 0,
        "object_store": 1,
    }
    assert found.labels("waiting_tasks") == []
    assert found.labels("build_info")
    assert found.labels("free_disk_bytes")
    assert "127.0.0.1" not in response.text


def test_all_counters_begin_with_zero(app: Flask) -> None:
    """So that the first event is an increase."""
    found = Metrics(app.test_client().get("/metrics").text)
    assert {"model": "digits"} in found.labels("tasks_accepted_total")
    assert {"reason": "overloaded"} in found.labels("tasks_refused_total")
