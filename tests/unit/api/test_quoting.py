"""Wrong values in every field of every path: no problem document is over 4 KB, and none repeats what a terminal would act on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from api_rig import PROBLEM, RAW_METADATA, FakeWorker, encoded_form, failure, form, post_batch, raw_image
from flask import Flask
from flask.testing import FlaskClient
from urllib3 import encode_multipart_formdata
from werkzeug.test import TestResponse

from api.forms.known_fields import COMMAND_FIELDS, OPTION_NAMES
from inference.errors import InvalidImage, InvalidModel

MAX_PROBLEM_BYTES = 4096
CONTROLLER = "/inference_service_controller"

TEXTS = {
    "long": "x" * 400_000,
    "control characters": "\x00\x1b[31m\x07\r\n\x7f\x85" * 100,
    "directions and separators": "\u202e\u2066\u2028\u2029\u200b" * 100,
    "wide": "😀ü漢" * 2_000,
    "quotes": "'\"\\" * 300,
    "short": "\x1b",
    "blank": " ",
}
VALUES: dict[str, Any] = TEXTS | {
    "a long list": ["x" * 100] * 4_000,
    "a list of control characters": ["\x1b\u202e"] * 100,
    "deep": json.loads("[" * 200 + "]" * 200),
    "many members": {f"\x1b{number}": "x" * 100 for number in range(2_000)},
    "a long name": {"x" * 400_000: 1},
    "a large number": 10**18,
    "a negative number": -1,
    "true": True,
    "false": False,
    "a list of nothing": [],
    "an object of nothing": {},
    "a float": 1.5,
}


def raw_controls(text: str) -> list[str]:
    return [character for character in text if not character.isprintable() and character != " "]


def texts_in(document: Any) -> Iterator[str]:
    if isinstance(document, str):
        yield document
    elif isinstance(document, dict):
        for name, value in document.items():
            yield name
            yield from texts_in(value)
    elif isinstance(document, list):
        for value in document:
            yield from texts_in(value)


def check(problem: dict[str, Any]) -> None:
    assert len(orjson.dumps(problem)) <= MAX_PROBLEM_BYTES
    assert [text for text in texts_in(problem) if raw_controls(text)] == []


def check_answer(response: TestResponse) -> None:
    """A problem, or a batch with problems; a value that is right is no concern of this test."""
    assert response.status_code < 500 or response.status_code == 503, response.data[:500]
    document = orjson.loads(response.data)
    if response.content_type == PROBLEM:
        assert len(response.data) <= MAX_PROBLEM_BYTES
        check(document)
    for item in document.get("items", ()):
        if item["error"] is not None:
            check(item["error"])
    for header in (value for name, value in response.headers.items() if name not in ("Server-Timing", "Location")):
        assert len(header) < 200


def send(client: FlaskClient, path: str, parts: list[tuple[str, Any]], query: Any = None) -> TestResponse:
    data, content_type = encode_multipart_formdata([("image", ("a", raw_image(), "application/octet-stream")), *parts])
    return client.post(path, data=data, content_type=content_type, query_string=query, headers={"Prefer": "respond-async"})


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("path", ["/inference", "/inference/batch"])
def test_options_of_images(client: FlaskClient, path: str, value: Any) -> None:
    for option in (*OPTION_NAMES, "items", "Model"):
        metadata = orjson.dumps({option: value} if option in RAW_METADATA else RAW_METADATA | {option: value})
        check_answer(send(client, path, [("metadata", metadata)]))
        if path == "/inference/batch":
            check_answer(send(client, path, [("metadata", orjson.dumps([{option: value}]))]))
        if isinstance(value, str):
            check_answer(send(client, path, [("metadata", orjson.dumps(RAW_METADATA)), (option, value)]))
            check_answer(send(client, path, [("metadata", orjson.dumps(RAW_METADATA))], {option: value[:20_000]}))
    check_answer(send(client, path, [("metadata", orjson.dumps(value))]))


@pytest.mark.parametrize("value", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("path", ["/inference", "/inference/batch", CONTROLLER])
def test_names_and_texts_of_forms(client: FlaskClient, path: str, value: str) -> None:
    check_answer(send(client, path, [("command", value)]))
    check_answer(send(client, path, [("metadata", value)]))
    for name in ("a" + value, "metadata" + value[:3], "image" + value[:30]):
        clean = name.replace("\r", "").replace("\n", "")
        check_answer(send(client, path, [(clean, "x")]))
        check_answer(send(client, path, [(clean, ("f", "x", "image/png"))]))
        check_answer(client.post(path, data={clean: "x"}))
        check_answer(client.post(path, query_string={name[:20_000]: "x"}))
        check_answer(client.post(path, json={name: value, "command": "load_new_model"}))
        check_answer(client.post(path, json={"items": [{"object": "s3://inference/a", name: value}]}))
        check_answer(send(client, path, [("metadata", orjson.dumps({name: value}))]))
        check_answer(send(client, path, [("metadata", f'{{"{"x" * 400_000}": 1, "{"x" * 400_000}": 2}}')]))
    check_answer(client.post(path, data=value.encode(), content_type="application/json"))


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_references(client: FlaskClient, value: Any) -> None:
    objects = [value, f"s3://{value}/a", f"s3://inference/{value}"] if isinstance(value, str) else [value]
    for sent in objects:
        check_answer(client.post("/inference/batch", json={"items": [{"object": sent}], "mode": "async"}))
    check_answer(client.post("/inference/batch", json={"items": [value]}))
    check_answer(client.post("/inference/batch", json={"items": value}))
    check_answer(client.post("/inference/batch", json=value))


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("path", ["/inference", CONTROLLER])
def test_commands(client: FlaskClient, path: str, value: Any) -> None:
    check_answer(client.post(path, json={"command": value}))
    check_answer(client.post(path, json=value))
    for command, names in COMMAND_FIELDS.items():
        for name in names - {"command"}:
            fields = {"command": command, "weights_url": "w", "ensemble_mode": "true", "model_id": "digits"}
            fields = {field: text for field, text in fields.items() if field in names or field == "command"}
            check_answer(client.post(path, json=fields | {name: value}))
            if isinstance(value, str):
                check_answer(client.post(path, data=fields | {name: value}))


@pytest.mark.parametrize("value", [text.replace("\r", "").replace("\n", "") for text in TEXTS.values()], ids=TEXTS)
def test_headers_and_queries(client: FlaskClient, value: str) -> None:
    header = value[:20_000].encode().decode("latin-1")
    request = encoded_form([raw_image()], form(metadata=RAW_METADATA))
    for name in ("Prefer", "Idempotency-Key", "Content-Encoding"):
        check_answer(client.post("/inference?mode=async", headers={name: header}, **request))
    for content_type in (header, f"multipart/form-data; boundary={header}", f"application/json; charset={header}"):
        check_answer(client.post("/inference", data=b"x", content_type=content_type))
    for path in ("/tasks/x", "/batches/x", "/health/live"):
        check_answer(client.get(path, query_string={"wait": value[:20_000]}))
        check_answer(client.get(path, query_string={value[:20_000] + "x": "1"}))
    part = f'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\nContent-Type: {header}\r\n\r\n\x01\r\n--x--'
    check_answer(client.post("/inference", data=part.encode("latin-1"), content_type="multipart/form-data; boundary=x"))


def test_the_answer_to_a_batch_of_wrong_items(client: FlaskClient) -> None:
    for metadata in (
        {"priority": "x" * 400_000},
        {"model": "\x1b" * 40_000},
        {"sinks": ["x" * 1000] * 100},
        {"shape": [[1] * 10_000]},
    ):
        response = post_batch(client, [1] * 256, metadata=metadata)
        assert response.json["counts"]["refused"] == 256
        assert len(response.data) < 256 * 1000
        check_answer(response)
        stored = client.get(response.json["urls"]["self"])
        assert stored.json == response.json


def test_what_the_worker_says(client: FlaskClient, app: Flask, worker: FakeWorker) -> None:
    worker.answer = lambda *_: failure(InvalidImage("x" * 400_000, field="y" * 400_000, expected="z" * 400_000))
    response = client.post("/inference", **encoded_form([raw_image()], form(metadata=RAW_METADATA)))
    assert response.status_code == 400
    check_answer(response)
    assert len(client.get(f"/tasks/{response.json['task_id']}").data) < 2 * MAX_PROBLEM_BYTES


def test_many_workers_with_much_to_say(app: Flask) -> None:
    def view() -> None:
        raise InvalidModel("\x1b" * 9000, workers={f"worker {number}" + "😀" * 100: "x" * 9000 for number in range(1000)})

    app.add_url_rule("/raise", "raise", view)
    response = app.test_client().get("/raise")
    assert len(response.data) <= MAX_PROBLEM_BYTES
    assert "more workers" in str(response.json["workers"])
