"""POST /inference, answered at once: the forms that are taken, and the body that comes back."""

from __future__ import annotations

import re
from io import BytesIO
from typing import Any

import numpy as np
import orjson
import pytest
from api_rig import (
    RAW_METADATA,
    FakeWorker,
    assert_problem,
    encoded,
    failure,
    form,
    npy_image,
    picture,
    post,
    raw_form,
    raw_image,
    services_of,
    success,
    vector,
)
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.datastructures import FileStorage
from werkzeug.test import encode_multipart

from inference.errors import InvalidImage, PredictionFailed, PredictorDied

FORMATS = {
    "png": (picture("PNG"), "png"),
    "jpeg": (picture("JPEG", 64), "jpeg"),
    "webp": (picture("WEBP", 64), "webp"),
    "large png": (picture("PNG", 300), "png"),
    "npy": (npy_image(), "npy"),
}


def test_the_answer_has_the_members_of_rohe_and_the_added_ones(client: FlaskClient, worker: FakeWorker, app: Flask) -> None:
    response = post(client, raw_form(3, command="predict"))
    assert response.status_code == 200
    assert response.content_type == "application/json"
    body = response.json
    assert set(body) == {"response", "task_id", "request_id", "model"}
    assert set(body["response"]) == {"class", "label", "confidence_level", "prediction"}
    assert (body["response"]["class"], body["response"]["label"]) == (3, "3")
    np.testing.assert_allclose(body["response"]["prediction"], vector(3), rtol=1e-6)
    assert body["response"]["confidence_level"] == body["response"]["prediction"][3]
    spec = services_of(app).models.get("digits")
    assert body["model"] == {"name": "digits", "version": "1", "digest": spec.digest}
    assert response.headers["Task-Id"] == body["task_id"]


def test_values_come_as_the_model_gave_them(client: FlaskClient, worker: FakeWorker) -> None:
    """Numbers are as short as float32 needs, and the same float32 again."""
    values = orjson.loads(post(client).data)["response"]["prediction"]
    np.testing.assert_array_equal(np.float32(values), vector(7))
    assert len(str(values[7])) < 6


def test_server_timing_names_each_step(client: FlaskClient, worker: FakeWorker) -> None:
    header = post(client).headers["Server-Timing"]
    steps = dict(re.fullmatch(r"(\w+);dur=(\d+\.\d)", part).groups() for part in header.split(", "))
    assert set(steps) == {"store", "queue", "fetch", "decode", "batch_wait", "predict", "commit", "total"}
    assert steps["predict"] == "2.0"


@pytest.mark.parametrize("path", ["/inference", "/inference_service"])
def test_both_paths_take_a_request(client: FlaskClient, worker: FakeWorker, path: str) -> None:
    assert post(client, path=path).json["response"]["class"] == 7


@pytest.mark.parametrize(("data", "image_format"), FORMATS.values(), ids=FORMATS)
def test_files_need_no_metadata(client: FlaskClient, worker: FakeWorker, data: bytes, image_format: str) -> None:
    response = post(client, form(data, filename="upload.bin"))
    assert response.status_code == 200, response.data
    (message,) = worker.messages
    assert message.items[0].header.format == image_format


@pytest.mark.parametrize("shape", ["8,8,1", "8x8x1", "(8, 8, 1)", [8, 8, 1], "8,8", [1, 8, 8, 1]])
def test_raw_arrays_come_with_shape_and_dtype(client: FlaskClient, worker: FakeWorker, shape: Any) -> None:
    response = post(client, form(raw_image(4), metadata={"shape": shape, "dtype": "float32"}))
    assert response.status_code == 200, response.data
    assert response.json["response"]["class"] == 4
    header = worker.messages[0].items[0].header
    assert (header.format, header.shape, header.dtype) == ("raw", (8, 8, 1), "<f4")


@pytest.mark.parametrize("dtype", ["uint8", ">f4", "int64", "float64"])
def test_raw_arrays_may_have_another_dtype(client: FlaskClient, worker: FakeWorker, dtype: str) -> None:
    worker.answer = lambda *_: success(5)
    image = np.full((8, 8, 1), 5, dtype).tobytes()
    assert post(client, form(image, metadata={"shape": "8,8,1", "dtype": dtype})).status_code == 200


def test_the_image_reaches_the_worker_byte_by_byte(client: FlaskClient, worker: FakeWorker) -> None:
    seen: list[bytes] = []
    worker.answer = lambda _, data: seen.append(data) or success()
    image = bytes(range(256))
    assert post(client, form(image, metadata={"shape": "8,8", "dtype": "uint32"})).status_code == 200
    assert seen == [image]


def test_a_large_upload_is_taken(client: FlaskClient, worker: FakeWorker) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (900, 900, 3), np.uint8)
    image = encoded(Image.fromarray(noise), "PNG")
    assert len(image) > 2_000_000
    boundary, body = encode_multipart({"image": FileStorage(BytesIO(image), "image.png")})
    response = client.post("/inference", data=body, content_type=f"multipart/form-data; boundary={boundary}")
    assert response.status_code == 200
    assert worker.messages[0].items[0].header.format == "png"


@pytest.mark.usefixtures("worker")
class TestRequestId:
    def test_in_metadata(self, client: FlaskClient) -> None:
        assert post(client, raw_form(metadata={"request_id": "mine"})).json["request_id"] == "mine"

    def test_as_a_field_of_its_own(self, client: FlaskClient) -> None:
        assert post(client, raw_form(request_id="mine")).json["request_id"] == "mine"

    def test_the_field_wins(self, client: FlaskClient) -> None:
        response = post(client, raw_form(metadata={"request_id": "in metadata"}, request_id="in the form"))
        assert response.json["request_id"] == "in the form"

    @pytest.mark.parametrize("nothing", [None, ""])
    def test_none_is_made(self, client: FlaskClient, nothing: str | None) -> None:
        made = [post(client, raw_form(metadata={"request_id": nothing})).json["request_id"] for _ in range(2)]
        assert all(len(request_id) == 32 for request_id in made)
        assert made[0] != made[1]

    def test_a_number_is_taken_as_text(self, client: FlaskClient) -> None:
        assert post(client, raw_form(metadata={"request_id": 42})).json["request_id"] == "42"

    def test_any_text_of_256_characters_will_do(self, client: FlaskClient) -> None:
        text = "ü/:*\n{}"[:7].ljust(256, "…")
        assert post(client, raw_form(metadata={"request_id": text})).json["request_id"] == text

    @pytest.mark.parametrize("wrong", ["x" * 257, ["a"], {"a": 1}, 1.5])
    def test_anything_else_is_refused(self, client: FlaskClient, wrong: Any) -> None:
        response = post(client, raw_form(metadata={"request_id": wrong}))
        assert_problem(response, 400, "invalid_metadata", field="metadata.request_id")


class TestFailures:
    """Errors of the worker reach the waiting client with their own status."""

    @pytest.mark.parametrize(
        ("error", "status"),
        [(InvalidImage("it does not decode", field="image"), 400), (PredictionFailed("no"), 500), (PredictorDied("no"), 500)],
        ids=lambda value: getattr(value, "code", value),
    )
    def test_the_workers_error_is_the_answer(self, client: FlaskClient, worker: FakeWorker, error: Any, status: int) -> None:
        worker.answer = lambda *_: failure(error)
        response = post(client)
        problem = assert_problem(response, status, error.code, detail=error.detail)
        assert problem["task_id"] == worker.messages[0].items[0].task_id
        assert response.headers["Location"] == f"/tasks/{problem['task_id']}"
        assert client.get(f"/tasks/{problem['task_id']}").json["status"] == "failed"

    @pytest.mark.usefixtures("worker")
    def test_an_image_that_only_decoding_finds_broken_is_400(self, client: FlaskClient) -> None:
        png = picture("PNG", 64)
        response = post(client, form(png[:-40]))
        problem = assert_problem(response, 400, "invalid_image", field="image")
        assert problem["task_id"]

    @pytest.mark.usefixtures("worker")
    def test_raw_values_that_are_not_finite_are_400(self, client: FlaskClient) -> None:
        image = np.full((8, 8, 1), np.nan, np.float32).tobytes()
        problem = assert_problem(post(client, form(image, metadata=RAW_METADATA)), 400, "invalid_image")
        assert "NaN" in problem["detail"]
