"""Random requests: each answer is one that docs/openapi.json describes, and no error of the service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from api_rig import RAW_METADATA, FakeWorker, form, npy_image, picture, raw_image, services_of, success
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import BUDGET, SEED, as_json, chance_of, fuzz, json_values, mutations, objects, spliced, with_budget
from urllib3 import encode_multipart_formdata
from v2_rig import HEADER, INFER, binary_request, elements, request_of, tensor
from werkzeug.test import TestResponse

VALUES = json_values(
    *("request_id", "model", "shape", "dtype", "deadline_s", "priority", "sinks", "top_k", "prediction", "webhook", "mode"),
    *("image", "metadata", "items", "object", "base64", "url", "command", "digits", "8,8,1", "float32", "sync", "async"),
)
OPTIONS = {**RAW_METADATA, "request_id": "r", "deadline_s": 30, "priority": 1, "top_k": 3, "prediction": True, "mode": "async"}
CONTENTS = (raw_image(), npy_image(), picture("PNG"), picture("JPEG"), picture("WEBP"), b"", b"GIF89a", b"8,8,1")
IMAGES = st.sampled_from(CONTENTS)
IN_BASE64 = {"base64": "iVBORw0KGgo="}
LATER = {"Prefer": "respond-async"}
BOUNDARY = "b"
PATHS = (
    *("/tasks/{}", "/tasks/{}/image", "/tasks/{}/replay", "/batches/{}", "/uploads/{}", "/models/{}", "/dead-letters/{}"),
    *("/v2/models/{}", "/v2/models/{}/infer", "/console/{}", "/docs/{}", "/{}"),
)


@pytest.fixture(autouse=True)
def worker(app: Flask, redis_url: str) -> Iterator[FakeWorker]:
    """Give any image the same result; wait for images without a time limit, since most requests are refused."""
    with redis.Redis.from_url(redis_url, socket_timeout=None) as client:
        worker = FakeWorker(services_of(app), client)
        worker.answer = lambda item, _data: success(top_k=item.top_k)
        yield worker.start()
        worker.stop()


def check(response: TestResponse) -> None:
    """Check that the answer is no error of the service; a random deadline may be too short."""
    assert response.status_code < 500 or response.status_code == 504, (response.status_code, response.data)


def multipart(*parts: tuple[str, Any]) -> bytes:
    content, _ = encode_multipart_formdata(parts, boundary=BOUNDARY)
    return content


@fuzz(120)
@given(IMAGES, objects(OPTIONS, VALUES) | VALUES, objects({"top_k": "2", "mode": "async"}, st.text(max_size=9)))
def test_metadata_and_form_fields(client: FlaskClient, image: bytes, metadata: Any, fields: dict[str, str]) -> None:
    fields = {name: value for name, value in fields.items() if name not in {"image", "metadata"}}
    data = form(image, metadata=as_json(metadata).decode("utf-8", "replace"), **fields)
    check(client.post("/inference", data=data, headers=LATER))


@fuzz(120)
@given(objects({"image": IN_BASE64, **OPTIONS}, VALUES | st.just(IN_BASE64)) | VALUES)
def test_json_of_one_image(client: FlaskClient, body: Any) -> None:
    check(client.post("/inference", data=as_json(body), content_type="application/json", headers=LATER))


@fuzz(120)
@given(
    objects(
        {"items": [{"image": IN_BASE64}], "mode": "async"},
        st.lists(objects({"image": IN_BASE64, **OPTIONS}, VALUES) | VALUES, max_size=3) | VALUES,
    )
)
def test_json_of_a_batch(client: FlaskClient, body: Any) -> None:
    check(client.post("/inference/batch", data=as_json(body), content_type="application/json", headers=LATER))


@fuzz(120)
@given(
    objects(request_of(tensor([1] * 64, "FP32", [1, 8, 8, 1])), VALUES)
    | objects(tensor([1] * 64, "FP32", [1, 8, 8, 1]), VALUES).map(request_of)
    | VALUES,
    st.sampled_from(["", "2", "30", "300"]) | st.text("0123456789-x", max_size=5),
)
def test_v2_in_json(client: FlaskClient, body: Any, length: str) -> None:
    check(client.post(INFER, data=as_json(body), headers={HEADER: length} if length else {}))


@fuzz(100)
@given(
    st.dictionaries(st.sampled_from(["status", "model", "request_id", "since", "limit", "cursor", "x"]), st.text(max_size=12)),
    st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=30),
    st.sampled_from(["/tasks", "/status", "/models", "/v2/repository/index", "/openapi.json"]),
)
def test_queries_and_headers(client: FlaskClient, query: dict[str, str], value: str, path: str) -> None:
    headers = {"Prefer": value, "Accept": value, "If-None-Match": value, "Idempotency-Key": value, "X-Request-ID": value}
    check(client.get(path, query_string=query, headers=headers))


@fuzz(100)
@given(
    st.text(max_size=30),
    st.sampled_from(["GET", "POST", "DELETE", "PUT"]),
    st.sampled_from(PATHS),
)
def test_names_in_paths(client: FlaskClient, name: str, method: str, path: str) -> None:
    check(client.open(path.replace("{}", name), method=method))


FORMS: dict[str, Callable[[], bytes]] = {
    "one image": lambda: multipart(("image", ("a", raw_image())), ("metadata", '{"shape":"8,8,1","dtype":"float32"}')),
    "a batch": lambda: multipart(*[("image", ("a", picture("PNG")))] * 3, ("mode", "async")),
    "a command": lambda: multipart(("command", "none")),
}


@with_budget
@pytest.mark.parametrize("path", ["/inference", "/inference/batch"])
def test_damaged_forms(client: FlaskClient, path: str) -> None:
    chance = chance_of(path)
    contents = [make() for make in FORMS.values()]
    for _ in range(40 * BUDGET):
        for whole in (*contents, spliced(contents, chance)):
            (damaged,) = mutations(whole, 1, chance)
            boundary = chance.choice((BOUNDARY, BOUNDARY, BOUNDARY, '"b"', "", "\xff", "b; charset=utf-16"))
            kind = f"multipart/form-data; boundary={boundary}"
            check(client.post(path, data=damaged, content_type=kind, headers=LATER))


@with_budget
@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "application/json", "text/plain", ""])
def test_damaged_bodies_of_other_types(client: FlaskClient, kind: str) -> None:
    chance = chance_of(kind)
    contents = [b"command=x&mode=async&metadata=%7B%7D", as_json({"image": IN_BASE64, **OPTIONS}), b'{"items": [{}]}']
    for _ in range(15 * BUDGET):
        for damaged in mutations(spliced(contents, chance), 2, chance):
            for path in ("/inference", "/inference/batch"):
                charset = chance.choice(("", "", "; charset=utf-16", "; charset=x", "; charset=idna"))
                check(client.post(path, data=damaged, content_type=f"{kind}{charset}" if kind else None, headers=LATER))


@with_budget
@pytest.mark.parametrize("content", CONTENTS[:5], ids=["raw", "npy", "PNG", "JPEG", "WebP"])
def test_damaged_images(client: FlaskClient, worker: FakeWorker, content: bytes) -> None:
    for damaged in mutations(content, 30 * BUDGET, chance_of(f"image {len(content)}")):
        for metadata in (None, RAW_METADATA):
            check(client.post("/inference", data=form(damaged, metadata=metadata)))
    assert worker.errors == []


@with_budget
def test_damaged_binary_tensors(client: FlaskClient) -> None:
    chance = chance_of("v2")
    body, headers = binary_request(
        elements(picture("PNG"), picture("JPEG")), "BYTES", [2], id="r", parameters={"timeout": 30_000_000}
    )
    for damaged in mutations(body, 150 * BUDGET, chance):
        check(client.post(INFER, data=damaged, headers=headers))


def test_the_same_seed_gives_the_same_inputs() -> None:
    first, second = ([*mutations(bytes(1000), 20, chance_of("x"))] for _ in range(2))
    assert first == second
    assert len(set(first)) > 10, SEED
