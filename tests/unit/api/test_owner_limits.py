"""Limits of owners as clients see them: problems, and the headers of draft-ietf-httpapi-ratelimit-headers-10."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
from api_rig import MakeApp, assert_problem, encoded_form, raw_form, raw_image, services_of
from callers import ALICE, ClientOf, add_caller, find_callers
from flask import Flask
from v2_rig import INFER, arrays, request_of, tensor

from api.acceptance.owner_limits import OwnerLimits
from api.components import components_of
from api.security.rate_limit import RATE_LIMIT, RATE_LIMIT_POLICY
from inference.access import Limits
from inference.domain import TaskStatus
from inference.errors import RateLimited

ASYNC = {"Prefer": "respond-async"}
_NUMBERS = itertools.count()


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    app = make_app()
    find_callers(app)
    return app


def client_with(app: Flask, **limits: Any) -> ClientOf:
    """A client of an owner of its own, with these limits."""
    number = next(_NUMBERS)
    caller = dataclasses.replace(ALICE, owner=f"owner-{number}", key_id=f"key-{number}", limits=Limits(**limits))
    return ClientOf(app.test_client(), add_caller(caller))


def predict(client: ClientOf, **fields: Any) -> Any:
    return client.post("/inference", data=raw_form(**fields), headers=ASYNC)


def batch(client: ClientOf, count: int) -> Any:
    images = encoded_form([raw_image()] * count, {"metadata": '{"shape": [8, 8, 1], "dtype": "float32"}'})
    return client.post("/inference/batch", headers=ASYNC, **images)


def test_a_rate_that_is_exceeded(app: Flask) -> None:
    client = client_with(app, requests_per_s=0.5, burst=2)
    first = predict(client)
    assert first.status_code == 202
    assert first.headers[RATE_LIMIT_POLICY] == '"requests";q=2;w=4'
    assert first.headers[RATE_LIMIT] == '"requests";r=1;t=2'
    predict(client)
    response = predict(client)
    assert_problem(response, 429, "rate_limited", expected="at most 0.5 requests a second, or 2 at once after a pause")
    assert response.headers["Retry-After"] in {"1", "2"}
    assert response.headers[RATE_LIMIT_POLICY] == '"requests";q=2;w=4'
    assert response.headers[RATE_LIMIT] in {'"requests";r=0;t=3', '"requests";r=0;t=4'}


def test_uploads_and_erasures_have_the_same_rate(app: Flask) -> None:
    client, path = client_with(app, requests_per_s=0.01, burst=2), "/tasks?request_id=a-person&erase=true"
    predict(client, request_id="a-person")
    assert client.delete(path).status_code == 200
    assert client.post("/uploads").status_code == 201
    for response in (client.post("/uploads"), client.delete(path)):
        assert_problem(response, 429, "rate_limited", expected="at most 0.01 a second, or 2 at once after a pause")
        assert 0 < int(response.headers["Retry-After"]) <= 100
    assert predict(client).status_code == 202, "tasks are counted apart"
    other = client_with(app)
    assert [other.post("/uploads").status_code for _ in range(5)] == [201] * 5


def test_quotas_of_a_day_and_open_tasks(app: Flask) -> None:
    client = client_with(app, images_per_day=3, bytes_per_day=100_000, waiting_tasks=10)
    response = batch(client, 2)
    assert response.status_code == 202, response.data
    assert response.headers[RATE_LIMIT_POLICY] == (
        '"images";q=3;qu="images";w=86400, "bytes";q=100000;qu="content-bytes";w=86400, "tasks";q=10;qu="tasks"'
    )
    images, image_bytes, tasks = response.headers[RATE_LIMIT].split(", ")
    assert images.startswith('"images";r=1;t=')
    assert image_bytes.startswith(f'"bytes";r={100_000 - 2 * len(raw_image())};t=')
    assert tasks == '"tasks";r=8'
    refused = batch(client, 2)
    assert_problem(refused, 429, "quota_exceeded", expected="at most 3 images a day; the day ends at 00:00 UTC")
    assert 1 <= int(refused.headers["Retry-After"]) <= 86_400
    assert predict(client).status_code == 202


def test_too_many_open_tasks(app: Flask) -> None:
    client = client_with(app, waiting_tasks=1)
    task_id = predict(client).get_json()["task_id"]
    assert_problem(predict(client), 429, "quota_exceeded", expected="at most 1 tasks that have not ended")
    assert client.delete(f"/tasks/{task_id}").status_code == 200
    assert predict(client).status_code == 202


def test_a_replayed_request_uses_nothing_up(app: Flask) -> None:
    client = client_with(app, images_per_day=1)
    headers = ASYNC | {"Idempotency-Key": "one"}
    answers = [client.post("/inference", data=raw_form(), headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[1].headers["Idempotent-Replayed"] == "true"
    assert services_of(app).store.get_owner_use("owner-" + str(next(_NUMBERS) - 1)).images_today == 1


def test_the_largest_deadline(app: Flask) -> None:
    client = client_with(app, max_deadline_s=5)
    response = predict(client, deadline_s=6)
    assert_problem(response, 400, "invalid_metadata", field="metadata.deadline_s", expected="at most 5")
    task_id = predict(client).get_json()["task_id"]  # the default is longer
    record = services_of(app).store.get(task_id)
    assert record.deadline_at_ms - record.created_at_ms == 5000


def test_the_highest_priority(app: Flask) -> None:
    client = client_with(app, max_priority=3)
    assert predict(client, priority=3).status_code == 202
    response = predict(client, priority=4)
    assert_problem(response, 400, "invalid_metadata", field="metadata.priority", expected="at most 3")


def test_an_item_of_a_batch_over_a_limit_fails_alone(app: Flask) -> None:
    client = client_with(app, max_priority=3)
    metadata = '[{"shape": [8, 8, 1], "dtype": "float32", "priority": 9}, {"shape": [8, 8, 1], "dtype": "float32"}]'
    response = client.post("/inference/batch", headers=ASYNC, **encoded_form([raw_image()] * 2, {"metadata": metadata}))
    first, second = response.get_json()["items"]
    assert first["error"]["code"] == "invalid_metadata"
    assert second["status"] == TaskStatus.QUEUED


def test_the_errors_of_the_protocol_v2(app: Flask) -> None:
    client = client_with(app, images_per_day=0)
    response = client.post(INFER, json=request_of(tensor(arrays(7))))
    assert response.status_code == 429
    assert set(response.get_json()) == {"error"}
    assert response.headers[RATE_LIMIT].startswith('"images";r=0;t=')


def test_an_owner_without_limits_has_no_headers(app: Flask) -> None:
    response = predict(client_with(app))
    assert not {RATE_LIMIT, RATE_LIMIT_POLICY} & set(response.headers.keys())


def test_a_client_that_does_not_wait_is_refused_without_the_store(app: Flask) -> None:
    client = client_with(app, requests_per_s=0.01, burst=1)
    predict(client)
    assert predict(client).status_code == 429
    refusals = components_of(app).submissions.parts.owner_limits
    services_of(app).redis.close()
    store = components_of(app).submissions.parts.store
    calls = []
    accept = store.accept
    store.accept = lambda *sent, **options: calls.append(sent) or accept(*sent, **options)  # type: ignore[method-assign,func-returns-value]
    again = predict(client)
    assert_problem(again, 429, "rate_limited")
    assert calls == []
    assert again.headers[RATE_LIMIT].startswith('"requests";r=0;t=')
    assert refusals._refusals


def test_a_remembered_refusal_ends_with_its_time() -> None:
    now = [100.0]
    limits = OwnerLimits(lambda: now[0])
    limits.check(ALICE)
    limits.note(ALICE, RateLimited("too many", retry_after_s=2))
    now[0] += 1.5
    with pytest.raises(RateLimited) as refusal:
        limits.check(ALICE)
    assert refusal.value.retry_after_s == 0.5
    limits.check(dataclasses.replace(ALICE, owner="another"))
    now[0] += 0.5
    limits.check(ALICE)
