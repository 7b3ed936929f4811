"""`Idempotency-Key`: the same key with the same content is the same task, with other content a conflict."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import redis
from api_rig import (
    LISTS,
    Background,
    FakeWorker,
    accept_with,
    assert_problem,
    failure,
    form,
    post,
    raw_form,
    raw_image,
    services_of,
    wait_until,
)
from flask import Flask
from flask.testing import FlaskClient

from api.components import components_of
from inference.errors import PredictionFailed, ServiceUnavailable

KEY = {"Idempotency-Key": "one"}


def uploads(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_the_same_again_is_the_same_task_and_answer(client: FlaskClient, worker: FakeWorker, tmp_path: Path) -> None:
    first, again = (post(client, raw_form(3), headers=KEY) for _ in range(2))
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json == again.json
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len(worker.messages) == 1
    assert len(uploads(tmp_path)) == 1


def test_the_same_again_later_is_the_same_task(client: FlaskClient) -> None:
    headers = KEY | {"Prefer": "respond-async"}
    first, again = (post(client, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json["task_id"] == again.json["task_id"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"]


def test_what_was_sent_to_be_asked_for_may_be_sent_again_to_wait(client: FlaskClient, app: Flask, worker: FakeWorker) -> None:
    worker.gate.clear()
    task_id = post(client, headers=KEY | {"Prefer": "respond-async"}).json["task_id"]
    waiting = Background(lambda: post(app.test_client(), headers=KEY))
    wait_until(lambda: components_of(app).replies._waiters, "the waiter")
    worker.gate.set()
    response = waiting.response()
    assert response.status_code == 200
    assert response.json["task_id"] == task_id


def test_a_failure_is_answered_again(client: FlaskClient, worker: FakeWorker) -> None:
    worker.answer = lambda *_: failure(PredictionFailed("no"))
    problems = [assert_problem(post(client, headers=KEY), 500, "prediction_failed") for _ in range(2)]
    assert problems[0] == problems[1]
    assert len(worker.messages) == 1


OTHERS = {
    "image": lambda: raw_form(8),
    "dtype": lambda: form(raw_image(), metadata={"shape": "8,8,1", "dtype": "uint32"}),
    "request_id": lambda: raw_form(request_id="other"),
    "deadline": lambda: raw_form(deadline_s="5"),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_another_content_is_a_conflict(client: FlaskClient, worker: FakeWorker, tmp_path: Path, other: Any) -> None:
    task_id = post(client, raw_form(7), headers=KEY).json["task_id"]
    response = post(client, other(), headers=KEY)
    assert_problem(response, 409, "idempotency_conflict", field="Idempotency-Key", task_id=task_id)
    assert len(uploads(tmp_path)) == 1


def test_the_order_of_metadata_is_no_other_content(client: FlaskClient, worker: FakeWorker) -> None:
    texts = ('{"shape": "8,8,1", "dtype": "float32"}', '{ "dtype":"float32","shape":"8,8,1" }')
    first, again = (post(client, form(raw_image(), metadata=text), headers=KEY) for text in texts)
    assert first.json["task_id"] == again.json["task_id"]


def test_another_key_is_another_task(client: FlaskClient, worker: FakeWorker) -> None:
    first, other = (post(client, headers={"Idempotency-Key": key}) for key in ("one", "two"))
    assert first.json["task_id"] != other.json["task_id"]


@pytest.mark.parametrize("key", ["", "  "])
def test_an_empty_key_is_none(client: FlaskClient, worker: FakeWorker, key: str) -> None:
    first, other = (post(client, headers={"Idempotency-Key": key}) for _ in range(2))
    assert first.json["task_id"] != other.json["task_id"]


def test_request_ids_are_no_keys(client: FlaskClient, worker: FakeWorker) -> None:
    first, other = (post(client, raw_form(request_id="one")) for _ in range(2))
    assert first.json["task_id"] != other.json["task_id"]


def test_a_key_of_255_characters(client: FlaskClient, worker: FakeWorker) -> None:
    assert post(client, headers={"Idempotency-Key": "k" * 255}).status_code == 200


def test_at_the_same_time_it_is_one_task(app: Flask, worker: FakeWorker, tmp_path: Path, redis_client: redis.Redis) -> None:
    line = threading.Barrier(6)

    def send() -> Any:
        line.wait(10)
        return post(app.test_client(), raw_form(5), headers=KEY)

    responses = [one.response() for one in [Background(send) for _ in range(6)]]
    assert {response.status_code for response in responses} == {200}
    assert len({response.json["task_id"] for response in responses}) == 1
    assert [response.headers.get("Idempotent-Replayed") for response in responses].count(None) == 1
    assert len(worker.messages) == 1
    assert len(uploads(tmp_path)) == 1
    assert sum(redis_client.llen(key) for key in LISTS) == 0


def test_a_conflict_found_only_when_it_is_accepted_leaves_nothing(app: Flask, client: FlaskClient, tmp_path: Path) -> None:
    """Both came at the same time: when this one looked, the key was not yet known."""
    task_id = post(client, headers=KEY | {"Prefer": "respond-async"}).json["task_id"]
    accept_with(app, store=Proxy(services_of(app).store, find_idempotent=lambda *_, **__: None))
    assert_problem(post(client, raw_form(8), headers=KEY), 409, "idempotency_conflict", task_id=task_id)
    assert len(uploads(tmp_path)) == 1
    assert components_of(app).replies._waiters == {}


def test_a_replay_that_finds_the_store_down_leaves_no_waiter(app: Flask, client: FlaskClient) -> None:
    post(client, headers=KEY | {"Prefer": "respond-async"})

    def down(*_: Any) -> None:
        raise ServiceUnavailable("taken down by the test")

    accept_with(app, store=Proxy(services_of(app).store, get=down))
    assert_problem(post(client, headers=KEY), 503, "service_unavailable")
    assert components_of(app).replies._waiters == {}


class Proxy:
    """A store of which some methods are the test's."""

    def __init__(self, store: Any, **methods: Any) -> None:
        self._store = store
        self.__dict__.update(methods)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)
