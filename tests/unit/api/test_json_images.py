"""Images in JSON bodies: in base64, as data URLs, and as objects of the object store."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from api_rig import (
    RAW_METADATA,
    FakeWorker,
    MakeApp,
    assert_problem,
    form,
    npy_image,
    picture,
    post,
    raw_image,
    services_of,
)
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

PATHS = ["/inference", "/inference_service"]
PNG = picture("PNG")
STORED = "s3://inference/photos/seven.png"


def text(image: bytes) -> str:
    return base64.b64encode(image).decode()


def post_image(client: FlaskClient, image: Any, *, path: str = "/inference", headers: Any = None, **members: Any) -> TestResponse:
    return client.post(path, json={"image": image} | members, headers=headers)


def post_items(client: FlaskClient, images: list[Any], **members: Any) -> TestResponse:
    return client.post("/inference/batch", json={"items": [{"image": image} for image in images]} | members)


@pytest.fixture(autouse=True)
def _stored(app: Flask) -> None:
    services_of(app).objects.put("photos/seven.png", PNG)


ACCEPTED = {
    "base64": ({"base64": text(PNG)}, {}),
    "an array": ({"base64": text(raw_image(7))}, RAW_METADATA | {"shape": [8, 8, 1]}),
    "a .npy file": ({"base64": text(npy_image())}, {}),
    "a data URL": ({"url": f"data:image/png;base64,{text(PNG)}"}, {}),
    "a data URL of another type": ({"url": f"DATA:image/jpeg;name=a.jpg;base64,{text(PNG)}"}, {}),
    "a data URL without a type": ({"url": f"data:;base64,{text(PNG)}"}, {}),
    "an object": ({"url": STORED}, {}),
}


@pytest.mark.parametrize(("image", "options"), ACCEPTED.values(), ids=ACCEPTED)
def test_an_image_is_classified(client: FlaskClient, worker: FakeWorker, image: Any, options: Any) -> None:
    for path in PATHS:
        response = post_image(client, image, path=path, request_id="mine", command="predict", **options)
        assert (response.status_code, response.json.get("request_id")) == (200, "mine"), response.data
        assert response.json["response"]["class"] == 7
    response = post_items(client, [image, image], **options)
    assert [item["result"]["class"] for item in response.json["items"]] == [7, 7]


WRONG = {
    "a text": ("aGk=", "image"),
    "nothing": (None, "image"),
    "a list": ([text(PNG)], "image"),
    "empty": ({}, "image"),
    "both": ({"base64": text(PNG), "url": STORED}, "image"),
    "another member": ({"base64": text(PNG), "type": "image/png"}, "image.type"),
    "no text": ({"base64": 3}, "image.base64"),
    "an empty text": ({"base64": ""}, "image.base64"),
    "no padding": ({"base64": text(PNG + bytes(1 + len(PNG) % 3)).rstrip("=")[:-1]}, "image.base64"),
    "more after the padding": ({"base64": "aGk=aGk="}, "image.base64"),
    "padding alone": ({"base64": "===="}, "image.base64"),
    "line breaks": ({"base64": base64.encodebytes(PNG).decode()}, "image.base64"),
    "the alphabet of URLs": ({"base64": "_-_-"}, "image.base64"),
    "not ASCII": ({"base64": "aGkä"}, "image.base64"),
    "a data URL as base64": ({"base64": f"data:image/png;base64,{text(PNG)}"}, "image.base64"),
    "a data URL without base64": ({"url": "data:image/svg+xml,%3Csvg/%3E"}, "image.url"),
    "a data URL without a comma": ({"url": "data:image/png;base64"}, "image.url"),
    "a data URL with a wrong text": ({"url": "data:image/png;base64,%"}, "image.url"),
    "no URL": ({"url": "photo.jpg"}, "image.url"),
    "another scheme": ({"url": "file:///etc/passwd"}, "image.url"),
    "another bucket": ({"url": "s3://models/model.h5"}, "image.url"),
    "no key": ({"url": "s3://inference/"}, "image.url"),
    "control characters": ({"url": "s3://inference/photos\0"}, "image.url"),
    "a long URL": ({"url": f"s3://inference/{'x' * 5000}"}, "image.url"),
}


@pytest.mark.parametrize(("image", "field"), WRONG.values(), ids=WRONG)
def test_a_wrong_image_is_refused_with_its_member(client: FlaskClient, worker: FakeWorker, image: Any, field: str) -> None:
    problem = assert_problem(post_image(client, image), 400, "invalid_request", field=field)
    assert problem["expected"]
    items = post_items(client, [image, {"base64": text(PNG)}]).json["items"]
    assert [item["error"] and item["error"]["field"] for item in items] == [field, None]


def test_an_object_that_is_missing(client: FlaskClient) -> None:
    assert_problem(post_image(client, {"url": "s3://inference/photos/nobody"}), 404, "object_not_found", field="image.url")


def test_the_cause_of_wrong_base64_is_named(client: FlaskClient) -> None:
    details = [
        post_image(client, {"base64": wrong}).json["detail"] for wrong in ("aGk", "aG k=", f"data:image/png;base64,{text(PNG)}")
    ]
    assert "3 characters" in details[0]
    assert "character 3 is ' '" in details[1]
    assert "data URL" in details[2]


BODIES = {
    "metadata": ({"image": {"base64": text(PNG)}, "metadata": {}}, "metadata"),
    "no image": ({"request_id": "mine"}, "image"),
    "nothing": ({}, "image"),
    "an object": ({"object": STORED}, "image"),
    "items": ({"items": [{"object": STORED}]}, "image"),
    "a misspelled option": ({"image": {"base64": text(PNG)}, "priorty": 1}, "body.priorty"),
    "an image and a command": ({"image": {"base64": text(PNG)}, "command": "load_new_model", "model_id": "digits"}, "image"),
}


@pytest.mark.parametrize(("body", "field"), BODIES.values(), ids=BODIES)
def test_a_body_that_is_no_prediction(client: FlaskClient, body: Any, field: str) -> None:
    response = client.post("/inference", json=body)
    assert (response.status_code, response.json["field"]) == (400, field)


def test_items_that_are_refused_alone(client: FlaskClient, worker: FakeWorker) -> None:
    good = {"image": {"base64": text(PNG)}}
    items = [
        good | {"object": STORED},
        good | {"metadata": {}},
        good | {"priorty": 3},
        {"image": {"base64": text(b"no picture at all")}},
        good | {"request_id": "fine", "mine": [1]},
    ]
    answers = client.post("/inference/batch", json={"items": items}).json["items"]
    codes = [item["error"] and item["error"]["code"] for item in answers]
    assert codes == ["invalid_request", "invalid_metadata", "invalid_metadata", "invalid_metadata", None]
    assert answers[-1]["request_id"] == "fine"


def test_options_in_the_query(client: FlaskClient, worker: FakeWorker) -> None:
    body = {"image": {"base64": text(PNG)}, "top_k": 2}
    response = client.post("/inference?prediction=false&top_k=2", json=body)
    assert len(response.json["response"]["top"]) == 2
    assert "prediction" not in response.json["response"]
    assert_problem(client.post("/inference?top_k=3", json=body), 400, "invalid_metadata", field="metadata.top_k")
    assert_problem(client.post("/inference?image=x", json=body), 400, "invalid_request", field="image")
    gateway = client.post("/inference?request_id=gateway", json=body | {"request_id": "mine"})
    assert gateway.json["request_id"] == "gateway"


def test_members_of_the_client_and_a_member_twice(client: FlaskClient, worker: FakeWorker) -> None:
    assert post_image(client, {"base64": text(PNG)}, mine={"a": [1, None]}).status_code == 200
    twice = b'{"image": {"base64": "aGk="}, "image": {"base64": "aGk="}}'
    response = client.post("/inference", data=twice, content_type="application/json")
    assert_problem(response, 400, "invalid_request", field="body.image")


def test_the_same_image_is_the_same_task_in_a_form_and_in_json(client: FlaskClient, worker: FakeWorker) -> None:
    headers = {"Idempotency-Key": "one"}
    first = post(client, form(PNG, metadata={"request_id": "mine"}), headers=headers)
    again = post_image(client, {"base64": text(PNG)}, request_id="mine", headers=headers)
    assert (again.headers["Idempotent-Replayed"], again.json["task_id"]) == ("true", first.json["task_id"])
    other = post_image(client, {"url": STORED}, request_id="mine", headers=headers)
    assert_problem(other, 409, "idempotency_conflict")


def test_the_same_url_is_the_same_task_though_its_object_is_gone(client: FlaskClient, worker: FakeWorker, app: Flask) -> None:
    headers = {"Idempotency-Key": "two"}
    first = post_image(client, {"url": STORED}, headers=headers)
    services_of(app).objects.delete("photos/seven.png")
    assert post_image(client, {"url": STORED}, headers=headers).json["task_id"] == first.json["task_id"]
    assert_problem(post_image(client, {"url": f"{STORED}2"}, headers=headers), 409, "idempotency_conflict")


def test_an_object_stays_where_it_is(client: FlaskClient, idle_worker: FakeWorker, app: Flask) -> None:
    task_id = post_image(client, {"url": STORED}, mode="async").json["task_id"]
    assert services_of(app).store.get(task_id).item.object_key == "photos/seven.png"
    assert_problem(client.get(f"/tasks/{task_id}/image"), 404, "image_not_found", task_id=task_id)
    idle_worker.work_off()
    assert client.get(f"/tasks/{task_id}").json["status"] == "succeeded"
    assert services_of(app).objects.get("photos/seven.png") == PNG


def test_a_refused_request_keeps_its_object(make_app: MakeApp) -> None:
    app = make_app(limits={"max_queue_depth": 1})
    client = app.test_client()
    assert post_image(client, {"url": STORED}, mode="async").status_code == 202
    for response in (post_image(client, {"url": STORED}, mode="async"), post_items(client, [{"url": STORED}], mode="async")):
        assert_problem(response, 429, "overloaded")
    assert services_of(app).objects.get("photos/seven.png") == PNG


def test_the_buckets_that_may_be_named(make_app: MakeApp) -> None:
    client = make_app(batch={"allowed_buckets": []}).test_client()
    assert_problem(post_image(client, {"url": STORED}), 400, "invalid_request", field="image.url")
    assert_problem(
        make_app(api={"max_body_bytes": 60}).test_client().post("/inference", json={"image": {"url": STORED}}),
        413,
        "payload_too_large",
    )


class TestLargeBodies:
    """A body may be as large as any other, but not have as many values."""

    def test_an_image_that_is_larger_than_other_json(self, client: FlaskClient, worker: FakeWorker) -> None:
        large = PNG + bytes(5 * 2**20)
        response = post_image(client, {"base64": text(large)}, note="NaN: Infinity")
        assert response.status_code == 200, response.data
        body = json.dumps({"image": {"base64": text(large)}, "note": float("nan")})
        assert client.post("/inference", data=body, content_type="application/json").status_code == 200

    @pytest.mark.parametrize("wrong", ["=", "-", "A=", "\n"])
    @pytest.mark.parametrize("place", [2**20 - 1, 2**20, 2**21 + 7, 3 * 2**20 - 3])
    def test_wrong_base64_in_the_middle(self, client: FlaskClient, place: int, wrong: str) -> None:
        sent = text(PNG + bytes(9 * 2**18 - len(PNG)))
        assert len(sent) == 3 * 2**20
        sent = sent[:place] + wrong + sent[place + len(wrong) :]
        assert_problem(post_image(client, {"base64": sent}), 400, "invalid_request", field="image.base64")

    def test_members_twice(self, client: FlaskClient) -> None:
        image = '{"base64": "' + text(bytes(2 * 2**20)) + '"}'
        body = f'{{"image": {image}, "image": {image}}}'
        response = client.post("/inference", data=body, content_type="application/json")
        assert_problem(response, 400, "invalid_request", field="body.image")

    @pytest.mark.parametrize("values", ["1,", "[],", "{},"])
    def test_many_values(self, client: FlaskClient, values: str) -> None:
        body = '{"image": [' + values * (5 * 2**20 // len(values)) + "1]}"
        response = client.post("/inference", data=body, content_type="application/json")
        problem = assert_problem(response, 413, "payload_too_large", field="body")
        assert "values" in problem["detail"]

    def test_over_the_limit_of_bodies(self, make_app: MakeApp) -> None:
        client = make_app(api={"max_body_bytes": 1000}).test_client()
        assert_problem(post_image(client, {"base64": text(bytes(1000))}), 413, "payload_too_large")


def test_json_with_another_content_type(client: FlaskClient) -> None:
    response = client.post("/inference", data='{"image": {"base64": "aGk="}}', content_type="text/plain")
    assert_problem(response, 400, "invalid_request", field="Content-Type")
