"""Batches as event streams and as JSON Lines: each item when it has ended, and the counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from api_rig import FakeWorker, MakeApp, post_batch, services_of
from event_reading import Event, Watch
from flask import Flask
from flask.testing import FlaskClient
from support.contract import check_item
from werkzeug.test import TestResponse

from api.components import components_of
from inference.errors import ServiceUnavailable

JSON_LINES = {"Accept": "application/jsonl"}
NOT_AN_IMAGE = b"no image"


def submit(client: FlaskClient, *images: int | bytes) -> str:
    response = post_batch(client, images, headers={"Prefer": "respond-async"})
    assert response.status_code == 202
    return str(response.headers["Batch-Id"])


def lines(response: TestResponse) -> list[dict[str, Any]]:
    with response:
        assert response.headers["Content-Type"] == "application/jsonl"
        return [line_of(text) for text in b"".join(response.iter_encoded()).splitlines(keepends=True)]


def line_of(text: bytes) -> dict[str, Any]:
    assert text.endswith(b"\n")
    line: dict[str, Any] = orjson.loads(text)
    check_item("/batches/x/events", "text/event-stream", line)
    return line


def states(events: list[Event]) -> list[Any]:
    return [event.data["status"] if event.name == "batch" else event.data["index"] for event in events]


class TestEvents:
    def test_counts_then_items_then_the_end(self, client: FlaskClient, watch: Watch, idle_worker: FakeWorker) -> None:
        batch_id = submit(client, 7, NOT_AN_IMAGE, 3)
        events = watch(f"/batches/{batch_id}/events")
        first, refused = events.next(), events.next()
        assert (first.name, first.data["status"], first.data["counts"]["queued"]) == ("batch", "running", 2)
        assert (refused.name, refused.data["index"], refused.data["error"]["code"]) == ("item", 1, "invalid_image")
        idle_worker.start()
        rest = events.rest()
        items = {event.data["index"]: event.data for event in rest if event.name == "item"}
        assert {index: item["result"]["class"] for index, item in items.items()} == {0: 7, 2: 3}
        assert not any("prediction" in item["result"] for item in items.values())
        assert (rest[-1].name, rest[-1].data["status"], rest[-1].data["counts"]["succeeded"]) == ("batch", "ended", 2)
        assert [event.data["status"] for event in rest[:-1] if event.name == "batch"].count("ended") == 0

    def test_one_that_has_ended_says_so_after_its_items(self, client: FlaskClient, watch: Watch, idle_worker: FakeWorker) -> None:
        batch_id = submit(client, *range(40))
        idle_worker.work_off()
        path = f"/batches/{batch_id}/events"
        events = watch(path).rest()
        assert sorted(states(events[:-1])) == list(range(40))
        assert states(events[-1:]) == ["ended"]
        with client.get(path, headers={"Last-Event-ID": events[-1].id}) as response:
            assert response.status_code == 204

    def test_vectors_are_there_if_they_are_asked_for(self, client: FlaskClient, watch: Watch, idle_worker: FakeWorker) -> None:
        batch_id = submit(client, 7)
        idle_worker.work_off()
        assert len(watch(f"/batches/{batch_id}/events?prediction=true").next().data["result"]["prediction"]) == 10

    def test_an_item_without_a_record_is_gone(
        self, client: FlaskClient, app: Flask, watch: Watch, idle_worker: FakeWorker
    ) -> None:
        batch_id = submit(client, 7, 3)
        idle_worker.work_off()
        services = services_of(app)
        prefix = services.settings.task_store.key_prefix
        services.redis.delete(f"{prefix}:task:{services.store.get_batch(batch_id).task_ids[0]}")
        *items, last = watch(f"/batches/{batch_id}/events").rest()
        assert [item.data["status"] for item in items if item.data["index"] == 0] == ["gone"]
        assert last.data["counts"]["gone"] == 1

    def test_no_such_batch(self, client: FlaskClient) -> None:
        assert client.get("/batches/nobody/events").status_code == 404


class TestJsonLines:
    @pytest.mark.parametrize("accept", ["application/jsonl", "application/x-ndjson", "application/json;q=0.5, application/jsonl"])
    def test_a_line_for_each_item_and_one_with_the_counts(self, client: FlaskClient, worker: FakeWorker, accept: str) -> None:
        response = post_batch(client, [7, NOT_AN_IMAGE, 3], headers={"Accept": accept})
        assert response.status_code == 200
        *items, last = lines(response)
        assert {item["index"]: item["status"] for item in items} == {0: "succeeded", 1: "refused", 2: "succeeded"}
        assert items[0]["index"] == 1  # it had ended first
        assert len(next(item for item in items if item["index"] == 2)["result"]["prediction"]) == 10
        assert (last["batch_id"], last["status"]) == (response.headers["Batch-Id"], "ended")
        assert (last["counts"]["succeeded"], last["counts"]["refused"]) == (2, 1)

    @pytest.mark.parametrize("accept", ["*/*", "application/json", "application/json, application/jsonl;q=0.9"])
    def test_others_get_a_document(self, client: FlaskClient, worker: FakeWorker, accept: str) -> None:
        response = post_batch(client, [7], headers={"Accept": accept})
        assert (response.mimetype, response.json["status"]) == ("application/json", "ended")

    def test_lines_come_while_others_wait(self, client: FlaskClient, idle_worker: FakeWorker) -> None:
        response = post_batch(client, [NOT_AN_IMAGE, 7], headers=JSON_LINES)
        parts: Iterator[bytes] = filter(None, response.iter_encoded())
        with response:
            assert line_of(next(parts))["status"] == "refused"
            idle_worker.start()
            assert line_of(next(parts))["result"]["class"] == 7
            assert line_of(next(parts))["status"] == "ended"

    def test_the_batch_goes_on_when_the_time_is_over(self, client: FlaskClient) -> None:
        response = post_batch(client, [NOT_AN_IMAGE, 7], headers=JSON_LINES | {"Prefer": "respond-async"})
        assert (response.status_code, response.headers["Preference-Applied"]) == (202, "respond-async")
        assert response.headers["Location"] == f"/batches/{response.headers['Batch-Id']}"
        refused, last = lines(response)
        assert (refused["index"], last["status"], last["counts"]["queued"]) == (0, "running", 1)

    def test_a_known_key_gives_the_lines_of_its_batch(self, client: FlaskClient, worker: FakeWorker) -> None:
        headers = JSON_LINES | {"Idempotency-Key": "k"}
        first = lines(post_batch(client, [7], headers=headers))
        again = post_batch(client, [7], headers=headers)
        assert again.headers["Idempotent-Replayed"] == "true"
        assert lines(again) == first

    def test_a_known_batch(self, client: FlaskClient, idle_worker: FakeWorker) -> None:
        batch_id = submit(client, 7, 3)
        (waiting,) = lines(client.get(f"/batches/{batch_id}?wait=0", headers=JSON_LINES))
        assert waiting["counts"]["queued"] == 2
        idle_worker.start()
        *items, last = lines(client.get(f"/batches/{batch_id}", headers=JSON_LINES))
        assert sorted(item["result"]["class"] for item in items) == [3, 7]
        assert last["status"] == "ended"

    def test_it_does_not_end_with_the_api(self, app: Flask, client: FlaskClient, idle_worker: FakeWorker) -> None:
        response = post_batch(client, [7], headers=JSON_LINES)
        components_of(app).stopping.set()
        parts: Iterator[bytes] = filter(None, response.iter_encoded())
        with response:
            idle_worker.start()
            assert [line_of(part)["status"] for part in parts] == ["succeeded", "ended"]

    def test_a_batch_whose_lines_cannot_be_read_is_named(self, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
        app = make_app()

        def fail(*_: object) -> None:
            raise ServiceUnavailable("the task store does not answer", retry_after_s=1)

        headers = JSON_LINES | {"Idempotency-Key": "k", "Prefer": "respond-async"}
        batch_id = post_batch(app.test_client(), [7], headers=headers).headers["Batch-Id"]
        monkeypatch.setattr(components_of(app).events, "load", fail)
        response = post_batch(app.test_client(), [7], headers=headers)
        assert (response.status_code, response.json["batch_id"]) == (503, batch_id)
        assert response.headers["Location"] == f"/batches/{batch_id}"

    def test_the_lines_of_a_new_batch_come_with_the_replies(
        self, make_app: MakeApp, idle_worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No reader of changes is started, and nothing is read, for what the replies say already."""
        app = make_app()
        parts = components_of(app)

        def fail(*_: object) -> None:
            raise ServiceUnavailable("the task store does not answer", retry_after_s=1)

        for name in ("get_many", "get_states", "get_batch"):
            monkeypatch.setattr(parts.services.store, name, fail)
        response = post_batch(app.test_client(), [7, NOT_AN_IMAGE, 3], headers=JSON_LINES)
        idle_worker.start()
        refused, *items, last = lines(response)
        assert (refused["index"], sorted(item["result"]["class"] for item in items)) == (1, [3, 7])
        assert (last["status"], last["counts"]["succeeded"], last["counts"]["refused"]) == ("ended", 2, 1)
        assert parts.events._thread is None

    def test_a_new_batch_counts_what_is_gone_at_the_end_of_the_wait(self, app: Flask, client: FlaskClient) -> None:
        response = post_batch(client, [7, 3], headers=JSON_LINES | {"Prefer": "respond-async"})
        services = services_of(app)
        task_ids = services.store.get_batch(response.headers["Batch-Id"]).task_ids
        services.redis.delete(f"{services.settings.task_store.key_prefix}:task:{task_ids[0]}")
        (last,) = lines(response)
        assert (last["status"], last["counts"]["gone"], last["counts"]["queued"]) == ("running", 1, 1)

    def test_a_client_that_leaves_frees_the_place_and_the_waiter(self, make_app: MakeApp) -> None:
        app = make_app(api={"max_event_streams": 1})
        parts = components_of(app)
        with post_batch(app.test_client(), [7], headers=JSON_LINES) as response:
            next(iter(response.iter_encoded()))
            assert post_batch(app.test_client(), [3], headers=JSON_LINES).status_code == 503
            assert len(parts.replies._waiters) == 1
        assert parts.replies._waiters == {}
        with post_batch(app.test_client(), [3], headers=JSON_LINES) as response:
            assert response.status_code == 200
