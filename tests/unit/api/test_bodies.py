"""Bodies that differ from their headers: the answer names the fault of the body, on every path that takes one."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from api_rig import FakeWorker, assert_problem, encoded_form, picture
from flask.testing import FlaskClient
from urllib3 import encode_multipart_formdata

IMAGES = ["/inference", "/inference_service", "/inference/batch"]
PATHS = [*IMAGES, "/inference_service_controller"]
FORM = encoded_form([picture("PNG")], {})
JPEG = picture("JPEG", 64)


def headless(content_type: str) -> str:
    return content_type.partition(";")[0]


BODIES: dict[str, tuple[bytes, str | None, str]] = {
    "no boundary": (FORM["data"], headless(FORM["content_type"]), "has no boundary"),
    "another boundary": (FORM["data"], "multipart/form-data; boundary=other", "'other', is not in the body"),
    "cut off": (FORM["data"][:-20], FORM["content_type"], "was cut off"),
    "line ends": (FORM["data"].replace(b"\r\n", b"\n"), FORM["content_type"], "CR LF"),
    "a picture as a form": (JPEG, FORM["content_type"], "is not in the body"),
    "a picture": (JPEG, "image/jpeg", "the image is the whole body"),
    "bytes": (JPEG, "application/octet-stream", "the image is the whole body"),
    "a picture, urlencoded": (JPEG, "application/x-www-form-urlencoded", "is not text"),
    "no Content-Type": (JPEG, None, "has no Content-Type"),
    "text": (b"hello", "text/plain", "'text/plain', and not a form"),
    "another multipart": (FORM["data"], FORM["content_type"].replace("form-data", "mixed"), "'multipart/mixed', and not a form"),
    "a nonsense type": (b"hello", "\x1b[31m" + "x" * 5000, "and not a form"),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("data", "content_type", "why"), BODIES.values(), ids=BODIES)
def test_what_is_wrong_is_said(client: FlaskClient, path: str, data: bytes, content_type: str | None, why: str) -> None:
    response = client.post(path, data=data, content_type=content_type)
    problem = assert_problem(response, 400, "invalid_request")
    assert why in problem["detail"]
    assert "there is no image" not in problem["detail"]
    assert "form-data" in problem["expected"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "zstd", "gzip, identity", "GZIP", "\x1b" + "x" * 5000])
def test_an_encoding_that_is_not_supported(client: FlaskClient, path: str, encoding: str) -> None:
    data, content_type = gzip.compress(FORM["data"]), FORM["content_type"]
    response = client.post(path, data=data, content_type=content_type, headers={"Content-Encoding": encoding})
    problem = assert_problem(response, 415, "unsupported_content_encoding", field="Content-Encoding")
    assert encoding.lower()[:4].strip("\x1b") in problem["detail"]
    assert response.headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("boundary", ["----=_Part_1_2.3", "===============8123==", "a/b", "a:b", "(x)", "a,b", "a?b", "a b"])
@pytest.mark.parametrize("path", IMAGES)
def test_a_boundary_that_should_have_quotes(client: FlaskClient, worker: FakeWorker, path: str, boundary: str) -> None:
    data, _ = encode_multipart_formdata([("image", ("a.jpg", JPEG, "image/jpeg"))], boundary=boundary)
    for parameter in (f"boundary={boundary}", f'boundary="{boundary}"', f"boundary = {boundary} ; charset=utf-8"):
        response = client.post(path, data=data, content_type=f"multipart/form-data; {parameter}")
        assert response.status_code == 200, parameter


@pytest.mark.parametrize("path", IMAGES)
@pytest.mark.parametrize("encoding", ["", "identity", "Identity"])
def test_none_is_supported(client: FlaskClient, worker: FakeWorker, path: str, encoding: str) -> None:
    assert client.post(path, headers={"Content-Encoding": encoding}, **FORM).status_code == 200


@pytest.mark.parametrize("path", IMAGES)
def test_an_empty_form(client: FlaskClient, path: str) -> None:
    for content_type in (FORM["content_type"], "text/plain", None):
        assert_problem(client.post(path, data=b"", content_type=content_type), 400, "invalid_request", field="image")


@pytest.mark.parametrize("path", ["/inference", "/inference_service"])
def test_an_image_in_a_json_body(client: FlaskClient, path: str) -> None:
    problem = assert_problem(client.post(path, json={"image": "aGk="}), 400, "invalid_request", field="image")
    assert "JSON" in problem["detail"]
    assert "curl -F image=@" in problem["expected"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("body", "charset"), [(b"\xff", None), (b"{", "utf-8"), (b"\xff", "utf-8"), (b"{}", "hex")])
def test_json_that_cannot_be_read(client: FlaskClient, path: str, body: bytes, charset: str | None) -> None:
    content_type = "application/json" + (f"; charset={charset}" if charset else "")
    problem = assert_problem(client.post(path, data=body, content_type=content_type), 400, "invalid_request", field="body")
    assert "image" not in problem["detail"]


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-16"])
def test_json_with_a_byte_order_mark(client: FlaskClient, content_type: str) -> None:
    text = '{"command": "load_new_model", "model_id": "none"}'
    data = text.encode("utf-16" if "16" in content_type else "utf-8-sig")
    response = client.post("/inference", data=data, content_type=content_type)
    assert_problem(response, 404, "model_not_found", field="model_id")


@pytest.mark.parametrize("kind", ["multipart/form-data", "Multipart/Form-Data"])
def test_a_boundary_in_quotes(client: FlaskClient, worker: FakeWorker, kind: str) -> None:
    boundary: Any = FORM["content_type"].partition("boundary=")[2]
    response = client.post("/inference", data=FORM["data"], content_type=f'{kind}; charset=utf-8; boundary="{boundary}"')
    assert response.status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_json_has_a_limit_of_its_own(client: FlaskClient, path: str) -> None:
    body = b'{"items": [' + b"{}," * 2_000_000
    response = client.post(path, data=body, content_type="application/json")
    problem = assert_problem(response, 413, "payload_too_large", field="body")
    assert "form-data" in problem["expected"]


def test_a_long_urlencoded_body_is_told_from_a_picture(client: FlaskClient) -> None:
    kind = "application/x-www-form-urlencoded"
    text = "command=" + "ä" * 1_000_000
    assert_problem(client.post(PATHS[-1], data=text.encode(), content_type=kind), 413, "payload_too_large")
    assert_problem(client.post(PATHS[-1], data=b"a" + text.encode(), content_type=kind), 413, "payload_too_large")
    assert_problem(client.post(PATHS[-1], data=JPEG + bytes(1_000_000), content_type=kind), 400, "invalid_request")
