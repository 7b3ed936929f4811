"""POST /inference/batch with objects that are in the object store already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from api_rig import RAW_METADATA, FakeWorker, assert_problem, picture, raw_image, services_of
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

MINE = "s3://inference/photos/today"


@pytest.fixture(autouse=True)
def _photos(app: Flask) -> None:
    for number in range(4):
        services_of(app).objects.put(f"photos/today/{number}", raw_image(number))
    services_of(app).objects.put("photos/today/one.png", picture("PNG"))


def post_objects(client: FlaskClient, items: Any, *, headers: Any = None, **members: Any) -> TestResponse:
    return client.post("/inference/batch", json={"items": items} | members, headers=headers)


def raw_object(number: int) -> dict[str, Any]:
    return RAW_METADATA | {"object": f"{MINE}/{number}"}


def codes(document: dict[str, Any]) -> list[str | None]:
    return [item["error"] and item["error"]["code"] for item in document["items"]]


def test_they_are_classified_where_they_lie(client: FlaskClient, worker: FakeWorker, app: Flask) -> None:
    items = [*map(raw_object, (3, 1)), {"object": f"{MINE}/one.png", "request_id": "mine"}]
    response = post_objects(client, items)
    assert response.status_code == 200
    assert [item["result"]["class"] for item in response.json["items"]] == [3, 1, 7]
    assert response.json["items"][2]["request_id"] == "mine"
    task_ids = [item["task_id"] for item in response.json["items"]]
    keys = [record.item.object_key for record in services_of(app).store.get_many(task_ids) if record]
    assert keys == ["photos/today/3", "photos/today/1", "photos/today/one.png"]


def test_members_of_the_body_are_for_all(client: FlaskClient, app: Flask) -> None:
    items = [raw_object(1), raw_object(2) | {"deadline_s": 7}]
    response = post_objects(client, items, mode="async", deadline_s=5, request_id="r")
    assert response.status_code == 202
    records = [services_of(app).store.get(item["task_id"]) for item in response.json["items"]]
    assert [record.deadline_at_ms - record.created_at_ms for record in records] == [5000, 7000]
    assert {record.request_id for record in records} == {"r"}


BAD = {
    "missing": (f"{MINE}/nobody", "object_not_found"),
    "a folder": (MINE, "object_not_found"),
    "below a file": (f"{MINE}/1/below", "object_not_found"),
    "out of the store": ("s3://inference/../data.json", "object_not_found"),
    "a name that no file has": (f"{MINE}/{'x' * 300}", "object_not_found"),
    "too long": (f"s3://inference/{'x/' * 600}x", "invalid_request"),
    "control characters": (f"{MINE}/\0", "invalid_request"),
    "another bucket": ("s3://models/model.h5", "invalid_request"),
    "no bucket": ("s3:///photos", "invalid_request"),
    "no key": ("s3://inference/", "invalid_request"),
    "another scheme": ("file:///etc/passwd", "invalid_request"),
    "no text": (3, "invalid_request"),
    "none": (None, "invalid_request"),
}


@pytest.mark.parametrize(("uri", "code"), BAD.values(), ids=BAD)
def test_a_bad_reference_is_refused_alone(client: FlaskClient, worker: FakeWorker, uri: Any, code: str) -> None:
    response = post_objects(client, [raw_object(1), RAW_METADATA | {"object": uri}, raw_object(2)])
    assert response.status_code == 200
    assert codes(response.json) == [None, code, None]
    if code == "invalid_request":
        assert response.json["items"][1]["error"]["field"] == "object"
        assert "inference" in response.json["items"][1]["error"]["expected"]


def test_an_item_without_an_image_is_refused_alone(client: FlaskClient, worker: FakeWorker) -> None:
    items = post_objects(client, [{"base64": "AAAA"}, raw_object(2)]).json["items"]
    error = items[0]["error"]
    assert (error["code"], error["field"], error["detail"]) == ("invalid_request", "image", "the item has no image")
    assert '{"base64": "…"}' in error["expected"]
    assert items[1]["error"] is None


def test_an_item_that_is_no_object_is_refused_alone(client: FlaskClient, worker: FakeWorker) -> None:
    response = post_objects(client, [f"{MINE}/1", raw_object(2)])
    assert codes(response.json) == ["invalid_metadata", None]


def test_what_is_no_image_is_refused_alone(client: FlaskClient, worker: FakeWorker) -> None:
    response = post_objects(client, [{"object": f"{MINE}/1"}, raw_object(2)])
    assert codes(response.json) == ["invalid_metadata", None]


def test_an_object_that_could_not_be_uploaded_is_not_read(make_app: Any) -> None:
    client = make_app(api={"max_body_bytes": 255}).test_client()
    response = post_objects(client, [raw_object(1)])
    assert codes(response.json) == ["payload_too_large"]


def test_the_buckets_that_may_be_named(make_app: Any) -> None:
    client = make_app(batch={"allowed_buckets": ["photos"]}).test_client()
    body = post_objects(client, [raw_object(1), {"object": "s3://photos/1"}]).json
    assert codes(body) == ["invalid_request", "object_not_found"]  # a folder is one bucket alone


def test_no_bucket_may_be_named(make_app: Any) -> None:
    client = make_app(batch={"allowed_buckets": []}).test_client()
    assert codes(post_objects(client, [raw_object(1)]).json) == ["invalid_request"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"items": {}}', b'{"items": []}', b"\xff"])
def test_a_body_without_items(client: FlaskClient, body: bytes) -> None:
    response = client.post("/inference/batch", data=body, content_type="application/json")
    assert response.status_code == 400
    assert response.json["expected"].startswith('{"items"')


def test_too_many(make_app: Any) -> None:
    client = make_app(batch={"max_items": 2}).test_client()
    problem = assert_problem(post_objects(client, [raw_object(1)] * 3), 400, "invalid_request", field="items")
    assert "at most 2" in problem["expected"]


def test_a_body_that_is_too_large(make_app: Any) -> None:
    client = make_app(api={"max_body_bytes": 1000}).test_client()
    assert_problem(post_objects(client, [raw_object(1)] * 30), 413, "payload_too_large")


def test_refusing_the_batch_removes_no_object_of_others(make_app: Any, tmp_path: Path) -> None:
    client = make_app(limits={"max_queue_depth": 2}).test_client()
    assert post_objects(client, [raw_object(1), raw_object(2)], mode="async").status_code == 202
    assert_problem(post_objects(client, [raw_object(1)], mode="async"), 429, "overloaded")
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 5


def test_the_same_again_is_the_same_batch_though_an_object_is_gone(client: FlaskClient, worker: FakeWorker, app: Flask) -> None:
    headers = {"Idempotency-Key": "k"}
    first = post_objects(client, [raw_object(1), raw_object(2)], headers=headers)
    services_of(app).objects.delete("photos/today/1")
    again = post_objects(client, [raw_object(1), raw_object(2)], headers=headers)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json == first.json
    other = post_objects(client, [raw_object(2), raw_object(1)], headers=headers)
    assert_problem(other, 409, "idempotency_conflict", batch_id=first.json["batch_id"])
