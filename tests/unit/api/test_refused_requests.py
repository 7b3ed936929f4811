"""POST /inference, refused by validation: what was wrong, where, and what would be right. Nothing of it is left behind."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from api_rig import LISTS, RAW_METADATA, assert_problem, encoded_form, form, npy_image, picture, post, raw_form, raw_image
from flask.testing import FlaskClient
from werkzeug.test import encode_multipart

GIF = b"GIF89a" + bytes(40)


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path, redis_client: redis.Redis, key_prefix: str, client: FlaskClient) -> Any:
    yield
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sum(redis_client.llen(key) for key in LISTS) == 0
    assert list(redis_client.scan_iter(match=f"{key_prefix}:*")) == []


class TestImage:
    def test_missing(self, client: FlaskClient) -> None:
        assert_problem(post(client, {"command": "predict"}), 400, "invalid_request", field="image")

    def test_as_a_plain_field(self, client: FlaskClient) -> None:
        problem = assert_problem(post(client, {"image": "bytes"}), 400, "invalid_request", field="image")
        assert "plain field" in problem["detail"]

    def test_under_another_name(self, client: FlaskClient) -> None:
        data = {"picture": (BytesIO(picture("PNG")), "a.png")}
        assert_problem(post(client, data), 400, "invalid_request", field="image")

    def test_urlencoded(self, client: FlaskClient) -> None:
        response = client.post("/inference", data="command=predict", content_type="application/x-www-form-urlencoded")
        assert_problem(response, 400, "invalid_request", field="image")

    @pytest.mark.parametrize("content_type", ["application/json", "image/png", "text/plain"])
    def test_a_body_that_is_no_form(self, client: FlaskClient, content_type: str) -> None:
        response = client.post("/inference", data=b'{"image": 1}', content_type=content_type)
        assert_problem(response, 400, "invalid_request", field="image")

    def test_no_body_at_all(self, client: FlaskClient) -> None:
        assert_problem(client.post("/inference"), 400, "invalid_request", field="image")

    def test_empty(self, client: FlaskClient) -> None:
        assert_problem(client.post("/inference", **encoded_form([b""], {})), 400, "invalid_image", field="image")

    def test_a_broken_header(self, client: FlaskClient) -> None:
        assert_problem(post(client, form(picture("PNG")[:20])), 400, "invalid_image", field="image")

    @pytest.mark.parametrize("data", [GIF, b"%PDF-1.7" + bytes(40), b"II*\0" + bytes(40)], ids=["gif", "pdf", "tiff"])
    def test_another_kind_of_file(self, client: FlaskClient, data: bytes) -> None:
        problem = assert_problem(post(client, form(data)), 415, "unsupported_image_type", field="image")
        assert "PNG" in problem["expected"]

    def test_another_media_type(self, client: FlaskClient) -> None:
        response = post(client, form(b"<svg></svg>" * 9, content_type="image/svg+xml"))
        problem = assert_problem(response, 415, "unsupported_image_type")
        assert "image/svg+xml" in problem["detail"]

    def test_bytes_of_no_known_kind(self, client: FlaskClient) -> None:
        assert_problem(post(client, form(b"what is this?" * 9)), 400, "invalid_metadata", field="metadata.shape")


class TestRawArrays:
    @pytest.mark.parametrize("length", [255, 257, 1])
    def test_another_number_of_bytes_names_both(self, client: FlaskClient, length: int) -> None:
        response = post(client, form((raw_image() * 2)[:length], metadata=RAW_METADATA))
        problem = assert_problem(response, 400, "invalid_image", field="image")
        assert f"{length} bytes" in problem["detail"]
        assert "256" in problem["detail"]
        assert problem["expected"] == "256 bytes"

    def test_a_shape_that_is_not_the_models(self, client: FlaskClient) -> None:
        response = post(client, form(bytes(4 * 64 * 3), metadata={"shape": "8,8,3", "dtype": "float32"}))
        assert_problem(response, 400, "invalid_metadata", field="metadata.shape", expected="8,8,1")

    @pytest.mark.parametrize("shape", ["", "8,eight", "0,8,1", [8, -8, 1], {"h": 8}, 8, [[8]], "8,8,8,8,8", True, [8.0, 8, 1]])
    def test_a_shape_that_is_none(self, client: FlaskClient, shape: Any) -> None:
        response = post(client, form(raw_image(), metadata={"shape": shape, "dtype": "float32"}))
        assert_problem(response, 400, "invalid_metadata", field="metadata.shape")

    @pytest.mark.parametrize("dtype", ["", "float33", "object", "f4,f4", 4, ["f4"], "complex64", "U4"])
    def test_a_dtype_that_is_none(self, client: FlaskClient, dtype: Any) -> None:
        response = post(client, form(raw_image(), metadata={"shape": "8,8,1", "dtype": dtype}))
        assert_problem(response, 400, "invalid_metadata", field="metadata.dtype")

    @pytest.mark.parametrize(("given", "missing"), [("shape", "dtype"), ("dtype", "shape")])
    def test_one_of_the_two_alone(self, client: FlaskClient, given: str, missing: str) -> None:
        response = post(client, form(raw_image(), metadata={given: RAW_METADATA[given]}))
        assert_problem(response, 400, "invalid_metadata", field=f"metadata.{missing}")

    def test_npy_of_another_shape(self, client: FlaskClient) -> None:
        file = BytesIO()
        np.save(file, np.zeros((8, 9, 1), np.float32))
        problem = assert_problem(post(client, form(file.getvalue())), 400, "invalid_image", field="image")
        assert "8,9,1" in problem["detail"]

    def test_npy_cut_short(self, client: FlaskClient) -> None:
        problem = assert_problem(post(client, form(npy_image()[:-1])), 400, "invalid_image", field="image")
        assert "announces" in problem["detail"]


class TestMetadata:
    @pytest.mark.parametrize("text", ["{", "shape=8,8,1", "{'shape': 1}", "NaN", '{"a": NaN', '{"a": "\\ud800"}', "[" * 2000])
    def test_no_json(self, client: FlaskClient, text: str) -> None:
        assert_problem(post(client, form(raw_image(), metadata=text)), 400, "invalid_metadata", field="metadata")

    @pytest.mark.parametrize("text", ["[]", "1", '"text"', "null", "true"])
    def test_no_object(self, client: FlaskClient, text: str) -> None:
        assert_problem(post(client, form(raw_image(), metadata=text)), 400, "invalid_metadata", field="metadata")

    def test_json_nested_deeply(self, client: FlaskClient) -> None:
        """Deeper than what is written again as JSON may be: that is the sender's fault, not ours."""
        text = '{"shape": "8,8,1", "dtype": "float32", "more": ' + "[" * 300 + "]" * 300 + "}"
        assert_problem(post(client, form(raw_image(), metadata=text)), 400, "invalid_metadata", field="metadata")

    @pytest.mark.parametrize("seconds", [0, -1, "soon", "", True, [1], {"s": 1}, "nan", "inf", 1e400, "9" * 400])
    def test_a_deadline_that_is_no_time(self, client: FlaskClient, seconds: Any) -> None:
        text = '{"deadline_s": 1e400}' if seconds == 1e400 else {"deadline_s": seconds}
        assert_problem(post(client, form(picture("PNG"), metadata=text)), 400, "invalid_metadata")

    def test_a_deadline_that_is_too_late(self, client: FlaskClient) -> None:
        response = post(client, raw_form(deadline_s="86401"))
        assert_problem(response, 400, "invalid_metadata", field="metadata.deadline_s", expected="at most 86400")

    @pytest.mark.parametrize("model", [1, ["digits"], {"name": "digits"}, True])
    def test_a_model_that_is_no_name(self, client: FlaskClient, model: Any) -> None:
        response = post(client, raw_form(metadata={"model": model}))
        assert_problem(response, 400, "invalid_metadata", field="metadata.model")

    @pytest.mark.parametrize("where", ["form", "metadata"])
    def test_an_unknown_model(self, client: FlaskClient, where: str) -> None:
        data = raw_form(model="resnet") if where == "form" else raw_form(metadata={"model": "resnet"})
        problem = assert_problem(post(client, data), 404, "model_not_found", field="metadata.model")
        assert "digits" in problem["expected"]


class TestTheRest:
    @pytest.mark.parametrize("command", ["Predict", "load_a_model", "predict "])
    def test_an_unknown_command(self, client: FlaskClient, command: str) -> None:
        problem = assert_problem(post(client, raw_form(command=command)), 400, "unknown_command", field="command")
        assert "predict" in problem["expected"]

    @pytest.mark.parametrize("where", ["form", "query", "metadata"])
    def test_an_unknown_mode(self, client: FlaskClient, where: str) -> None:
        data = {"form": raw_form(mode="later"), "metadata": raw_form(metadata={"mode": "later"})}.get(where, raw_form())
        path = "/inference?mode=later" if where == "query" else "/inference"
        assert_problem(post(client, data, path=path), 400, "invalid_request", field="mode")

    def test_an_idempotency_key_that_is_too_long(self, client: FlaskClient) -> None:
        response = post(client, headers={"Idempotency-Key": "k" * 256})
        assert_problem(response, 400, "invalid_request", field="Idempotency-Key")

    def test_a_refusal_does_not_repeat_megabytes_of_what_was_sent(self, client: FlaskClient) -> None:
        for field in ("command", "mode", "deadline_s", "model"):
            response = post(client, raw_form(**{field: "x" * 200_000}))
            assert response.status_code in (400, 404)
            assert len(response.data) < 2000


class TestSizes:
    @pytest.fixture
    def client(self, make_app: Any) -> FlaskClient:
        return make_app(api={"max_body_bytes": 20_000}, limits={"max_pixels": 10_000}).test_client()

    def test_a_body_that_is_too_large(self, client: FlaskClient) -> None:
        problem = assert_problem(post(client, form(bytes(20_000), metadata=RAW_METADATA)), 413, "payload_too_large")
        assert "max_body_bytes" in problem["detail"]

    def test_a_body_of_unknown_length_that_is_too_large(self, client: FlaskClient) -> None:
        response = client.post(
            "/inference",
            input_stream=BytesIO(bytes(30_000)),
            headers={"Transfer-Encoding": "chunked"},
            content_type="multipart/form-data; boundary=x",
            environ_overrides={"wsgi.input_terminated": True},
        )
        assert_problem(response, 413, "payload_too_large")

    def test_an_image_of_too_many_pixels(self, client: FlaskClient) -> None:
        problem = assert_problem(post(client, form(picture("PNG", 101))), 413, "payload_too_large", field="image")
        assert "10201" in problem["detail"]
        assert "10000" in problem["expected"]

    def test_one_of_as_many_as_allowed_is_not_refused_for_them(self, client: FlaskClient) -> None:
        assert_problem(post(client, form(picture("PNG", 100), model="none")), 404, "model_not_found")


def test_a_plain_field_that_is_too_large_is_told_so(client: FlaskClient) -> None:
    """An image sent as text is the usual mistake, and the body is not over `api.max_body_bytes`."""
    boundary, body = encode_multipart({"image": "x" * 600_000})
    response = client.post("/inference", data=body, content_type=f"multipart/form-data; boundary={boundary}")
    problem = assert_problem(response, 413, "payload_too_large")
    assert "file" in problem["detail"]
