"""POST /v2/models/{name}/infer: tensors in, tensors out, a task for each image."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import orjson
import pytest
import redis
from api_rig import FakeWorker, MakeApp, failure, picture, services_of, succeed, success, vector
from flask import Flask
from flask.testing import FlaskClient
from v2_rig import (
    HEADER,
    arrays,
    assert_error,
    binary_body,
    elements,
    infer,
    infer_binary,
    outputs,
    request_of,
    tensor,
)

from inference.domain import ImageFormat, Outcome, QueueItem
from inference.errors import PredictionFailed

#: Members of a request whose id is its idempotency key.
ASKED: dict[str, Any] = {"id": "order-17", "parameters": {"idempotent": True}}


def tasks_of(client: FlaskClient, request_id: str) -> list[dict[str, Any]]:
    """Return the tasks of a request in the order of acceptance."""
    return list(reversed(client.get("/tasks", query_string={"request_id": request_id, "prediction": "true"}).json["tasks"]))


@pytest.mark.usefixtures("worker")
class TestArrays:
    def test_in_json(self, client: FlaskClient) -> None:
        found = outputs(infer(client, request_of(tensor(arrays(3, 8)))))
        assert found["prediction"]["shape"] == [2, 10]
        assert found["prediction"]["datatype"] == "FP32"
        assert np.allclose(found["prediction"]["data"], np.concatenate([vector(3), vector(8)]))
        assert found["label"] == {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["3", "8"]}

    def test_flat(self, client: FlaskClient) -> None:
        data = arrays(3, 8).ravel().tolist()
        assert outputs(infer(client, request_of(tensor(data, shape=[2, 8, 8, 1]))))["label"]["data"] == ["3", "8"]

    def test_binary(self, client: FlaskClient) -> None:
        response = infer_binary(client, arrays(1, 2).tobytes(), "FP32", [2, 8, 8, 1])
        assert outputs(response)["label"]["data"] == ["1", "2"]

    @pytest.mark.parametrize(
        ("datatype", "dtype"),
        [
            *(("UINT8", "u1"), ("UINT16", "<u2"), ("UINT32", "<u4"), ("UINT64", "<u8")),
            *(("INT8", "i1"), ("INT16", "<i2"), ("INT32", "<i4"), ("INT64", "<i8")),
            *(("FP16", "<f2"), ("FP32", "<f4"), ("FP64", "<f8")),
        ],
    )
    def test_every_number(self, client: FlaskClient, worker: FakeWorker, datatype: str, dtype: str) -> None:
        seen: list[float] = []

        def look(item: QueueItem, data: bytes) -> Outcome:
            assert item.header is not None
            seen.extend(np.frombuffer(data, item.header.dtype).tolist())
            return succeed(QueueItem(item.task_id, item.object_key, item.header), arrays(5).tobytes())

        worker.answer = look
        values = arrays(5, 6).astype(dtype)
        outputs(infer(client, request_of(tensor(values, datatype))))
        outputs(infer_binary(client, values.tobytes(), datatype, values.shape))
        assert seen == [5.0] * 64 + [6.0] * 64 + [5.0] * 64 + [6.0] * 64

    def test_booleans(self, client: FlaskClient, worker: FakeWorker) -> None:
        worker.answer = lambda item, data: succeed(item, arrays(sum(data)).tobytes())
        outputs(infer(client, request_of(tensor(arrays(1).astype(bool), "BOOL"))))
        outputs(infer_binary(client, bytes([1]) * 64, "BOOL", [1, 8, 8, 1]))

    def test_whole_numbers_may_be_written_as_floats(self, client: FlaskClient) -> None:
        data = [7.0] * 64
        assert infer(client, request_of(tensor(data, "UINT8", [1, 8, 8, 1]))).status_code == 200


@pytest.mark.usefixtures("worker")
class TestFiles:
    def test_binary(self, client: FlaskClient, worker: FakeWorker) -> None:
        data = elements(picture("PNG"), picture("JPEG"), picture("WEBP"))
        assert outputs(infer_binary(client, data, "BYTES", [3]))["label"]["data"] == ["7"] * 3
        formats = [item.header.format for message in worker.messages for item in message.items if item.header]
        assert formats == [ImageFormat.PNG, ImageFormat.JPEG, ImageFormat.WEBP]

    def test_base64_in_json(self, client: FlaskClient) -> None:
        text = base64.b64encode(picture("PNG")).decode()
        assert outputs(infer(client, request_of(tensor([text], "BYTES"))))["label"]["shape"] == [1]
        assert outputs(infer(client, request_of(tensor([[text], [text]], "BYTES"))))["label"]["shape"] == [2]


@pytest.mark.usefixtures("worker")
class TestOutputs:
    def ask(self, client: FlaskClient, *wanted: dict[str, Any], **parameters: Any) -> dict[str, dict[str, Any]]:
        more = {"outputs": list(wanted)} if wanted else {}
        response = infer(client, request_of(tensor(arrays(3, 8)), parameters=parameters, **more))
        self.content_type, self.length = response.content_type, response.headers.get(HEADER)
        return outputs(response)

    def test_some(self, client: FlaskClient) -> None:
        assert self.ask(client, {"name": "label"}).keys() == {"label"}
        assert (self.content_type, self.length) == ("application/json", None)

    def test_binary_for_all(self, client: FlaskClient) -> None:
        found = self.ask(client, binary_data_output=True)
        assert found["prediction"]["data"] == np.concatenate([vector(3), vector(8)]).tobytes()
        assert found["label"]["data"] == elements(b"3", b"8")
        assert self.content_type == "application/octet-stream"

    def test_an_outputs_own_choice_takes_precedence(self, client: FlaskClient) -> None:
        label = {"name": "label", "parameters": {"binary_data": False}}
        found = self.ask(client, label, {"name": "prediction"}, binary_data_output=True)
        assert found["label"]["data"] == ["3", "8"]
        assert isinstance(found["prediction"]["data"], bytes)
        assert list(found) == ["label", "prediction"]

    def test_classification(self, client: FlaskClient) -> None:
        found = self.ask(client, {"name": "prediction", "parameters": {"classification": 2}})["prediction"]
        assert found == {
            "name": "prediction",
            "datatype": "BYTES",
            "shape": [2, 2],
            "data": ["0.930000:3:3", "0.010000:9:9", "0.930000:8:8", "0.010000:9:9"],
        }

    def test_more_classes_than_there_are(self, client: FlaskClient) -> None:
        wanted = {"name": "prediction", "parameters": {"classification": 2**40, "binary_data": True}}
        found = self.ask(client, wanted)["prediction"]
        assert found["shape"] == [2, 10]
        assert found["data"].startswith(elements(b"0.930000:3:3", b"0.010000:9:9"))

    @pytest.mark.parametrize(
        ("wanted", "text"),
        [
            ([{"name": "scores"}], "digits has no output 'scores'; expected: prediction or label"),
            ([{"name": "label"}, {"name": "label"}], "twice"),
            ([{"name": "label"}] * 3, "outputs: List should have at most 2 items"),
            ([{"name": "label", "parameters": {"classification": 1}}], "label has no classification"),
            ([{"name": "prediction", "parameters": {"classification": -1}}], "outputs.0.parameters.classification"),
            ([{"name": "prediction", "parameters": {"shared_memory_region": "a"}}], "no shared memory"),
            ("label", "outputs: Input should be a valid list"),
        ],
    )
    def test_refused(self, client: FlaskClient, wanted: Any, text: str) -> None:
        assert_error(infer(client, request_of(tensor(arrays(1)), outputs=wanted)), 400, text)


@pytest.mark.usefixtures("worker")
class TestTasks:
    def test_each_image_is_one(self, client: FlaskClient) -> None:
        response = infer(client, request_of(tensor(arrays(3, 8)), id="photos"))
        document = response.json
        assert (document["model_name"], document["model_version"], document["id"]) == ("digits", "1", "photos")
        ids = document["parameters"]["task_ids"].split(",")
        batch = client.get(f"/batches/{document['parameters']['batch_id']}").json
        assert [item["task_id"] for item in batch["items"]] == ids
        assert [item["result"]["class"] for item in batch["items"]] == [3, 8]
        assert response.headers["Batch-Id"] == batch["batch_id"]
        assert [task["task_id"] for task in tasks_of(client, "photos")] == ids

    def test_answers_without_an_id(self, client: FlaskClient) -> None:
        assert "id" not in infer(client, request_of(tensor(arrays(3)))).json

    @pytest.mark.parametrize(("sent", "stored"), [(0, 0), (1, 9), (2, 8), (9, 1), (10, 0), (2**62, 0)])
    def test_priority(self, client: FlaskClient, sent: int, stored: int) -> None:
        infer(client, request_of(tensor(arrays(3)), id="r", parameters={"priority": sent}))
        assert [task["priority"] for task in tasks_of(client, "r")] == [stored]

    @pytest.mark.parametrize("parameters", [{"timeout": 7_000_000}, {"deadline_s": 7}, {"timeout": 0, "deadline_s": 7.0}])
    def test_deadline(self, client: FlaskClient, app: Flask, parameters: dict[str, Any]) -> None:
        infer(client, request_of(tensor(arrays(3)), id="r", parameters=parameters))
        (task,) = tasks_of(client, "r")
        record = services_of(app).store.get(task["task_id"])
        assert record.deadline_at_ms - record.created_at_ms == 7000

    @pytest.mark.parametrize(
        ("members", "text"),
        [
            ({"parameters": {"timeout": 1, "deadline_s": 7}}, "both given"),
            ({"parameters": {"timeout": -1}}, "parameters.timeout"),
            ({"parameters": {"deadline_s": 0}}, "deadline_s is not a number of seconds"),
            ({"parameters": {"deadline_s": 1e9}}, "more than this service allows"),
            ({"parameters": {"priority": "high"}}, "parameters.priority: Input should be a valid integer"),
            ({"parameters": {"prioritys": 1}}, "did you mean priority?"),
            ({"parameters": {"sequence_id": 1}}, "no sequences"),
            ({"parameters": [1]}, "parameters: Input should be"),
            ({"id": "x" * 257}, "id: String should have at most 256 characters"),
            ({"id": 17}, "id: Input should be a valid string"),
            ({"output": []}, "did you mean outputs?"),
        ],
    )
    def test_refused_parameters(self, client: FlaskClient, members: dict[str, Any], text: str) -> None:
        assert_error(infer(client, request_of(tensor(arrays(1)), **members)), 400, text)

    def test_parameters_of_the_clients_own_are_ignored(self, client: FlaskClient) -> None:
        sent = request_of(tensor(arrays(3), content_type="np"), model_name="digits", parameters={"note": {"a": 1}})
        assert infer(client, sent).status_code == 200


@pytest.mark.usefixtures("worker")
class TestIdempotency:
    def test_the_id_is_the_key(self, client: FlaskClient) -> None:
        first, second = (infer(client, request_of(tensor(arrays(3, 8)), **ASKED)) for _ in range(2))
        assert second.json == first.json
        assert "Idempotent-Replayed" not in first.headers
        assert second.headers["Idempotent-Replayed"] == "true"
        header = infer(client, request_of(tensor(arrays(3, 8)), id="order-17"), Idempotency_Key="order-17")
        assert header.json == first.json

    def test_other_content(self, client: FlaskClient) -> None:
        infer(client, request_of(tensor(arrays(3)), **ASKED))
        other = infer(client, request_of(tensor(arrays(4)), **ASKED))
        assert_error(other, 409, "used before with other content")

    def test_without_the_parameter_an_id_may_be_repeated(self, client: FlaskClient) -> None:
        first, second = (infer(client, request_of(tensor(arrays(number)), id="r")) for number in (3, 4))
        assert first.json["parameters"]["task_ids"] != second.json["parameters"]["task_ids"]

    def test_refused(self, client: FlaskClient) -> None:
        assert_error(infer(client, request_of(tensor(arrays(3)), parameters={"idempotent": True})), 400, "has no id")
        differs = infer(client, request_of(tensor(arrays(3)), **ASKED), Idempotency_Key="another")
        assert_error(differs, 400, "Idempotency-Key is not the id")


class TestAllOrNone:
    def test_an_image_that_is_refused_refuses_all(self, client: FlaskClient, redis_client: redis.Redis) -> None:
        data = elements(picture("PNG"), b"no image", picture("PNG"))
        assert_error(infer_binary(client, data, "BYTES", [3], id="r"), 400, "image 1: the bytes are not")
        assert tasks_of(client, "r") == []

    def test_an_image_that_fails_later(self, client: FlaskClient, worker: FakeWorker) -> None:
        def answer(item: QueueItem, data: bytes) -> Outcome:
            return failure(PredictionFailed("no")) if data == arrays(8).tobytes() else succeed(item, data)

        worker.answer = answer
        response = infer(client, request_of(tensor(arrays(3, 8, 5)), id="r"))
        text = assert_error(response, 500, "image 1 (the results of all are at /batches/")
        batch = client.get(text[text.index("/batches/") :].partition(")")[0]).json
        assert batch["counts"]["succeeded"] == 2
        assert response.headers["Location"] == f"/tasks/{batch['items'][1]['task_id']}"

    def test_numbers_that_are_not_finite(self, client: FlaskClient, worker: FakeWorker) -> None:
        body = orjson.dumps(request_of(tensor(arrays(3, 8)))).replace(b"8.0", b"NaN", 1)
        assert_error(infer(client, body), 400, "image 1 (the results of all are at /batches/")

    def test_a_deadline_that_passes(self, client: FlaskClient, app: Flask) -> None:
        sent = request_of(tensor(arrays(3)), id="r", parameters={"timeout": 1})
        assert_error(infer(client, sent), 504, "")


@contextmanager
def worker_of(app: Flask, client: redis.Redis) -> Iterator[FakeWorker]:
    """A worker of another application than the fixture `app`."""
    worker = FakeWorker(services_of(app), client)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def test_pixels_of_any_size(make_app: MakeApp, redis_client: redis.Redis) -> None:
    model = {"name": "digits", "file": "models/digits/digits.keras", "input": {"shape": [8, 8, 1], "raw": "pixels"}}
    app = make_app(models=(model,))
    client = app.test_client()
    metadata = client.get("/v2/models/digits").json
    assert metadata["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 1]}]
    assert metadata["outputs"] == [{"name": "prediction", "datatype": "FP32", "shape": [-1, -1]}]
    with worker_of(app, redis_client) as worker:
        worker.answer = lambda *_: success(4)
        pixels = np.full((1, 30, 20, 3), 200, np.uint8)
        response = infer_binary(client, pixels.tobytes(), "UINT8", pixels.shape)
        assert outputs(response).keys() == {"prediction"}


def test_sinks(make_app: MakeApp, redis_client: redis.Redis) -> None:
    app = make_app(sinks=("jsonl",))
    client = app.test_client()
    with worker_of(app, redis_client):
        for names, sinks in (({}, ["jsonl"]), ({"sinks": "jsonl"}, ["jsonl"]), ({"sinks": ""}, [])):
            task_id = infer(client, request_of(tensor(arrays(3)), parameters=names)).json["parameters"]["task_ids"]
            assert [each["sink"] for each in client.get(f"/tasks/{task_id}").json["deliveries"]] == sinks
    refused = request_of(tensor(arrays(3)), parameters={"sinks": "kafka"})
    assert_error(infer(client, refused), 400, "image 0: results cannot go to 'kafka'; expected: some of jsonl")


def test_versions(client: FlaskClient, worker: FakeWorker) -> None:
    assert infer(client, request_of(tensor(arrays(3))), "/v2/models/digits/versions/1/infer").status_code == 200
    other = infer(client, request_of(tensor(arrays(3))), "/v2/models/digits/versions/2/infer")
    assert_error(other, 404, "digits has no version '2'; expected: 1")
    assert_error(infer(client, request_of(tensor(arrays(3))), "/v2/models/cats/infer"), 404, "cats")


def test_a_request_counts_as_one_batch(make_app: MakeApp) -> None:
    client = make_app(batch={"max_items": 2}).test_client()
    assert_error(infer(client, request_of(tensor(arrays(1, 2, 3)))), 413, "3 images are more than a request may have")


def test_a_body_that_is_more_than_its_json(client: FlaskClient, worker: FakeWorker) -> None:
    body, headers = binary_body(request_of(tensor(None, "FP32", [1, 8, 8, 1], binary_data_size=256)), arrays(3).tobytes())
    assert outputs(client.post("/v2/models/digits/infer", data=body, headers=headers))["label"]["data"] == ["3"]
    assert_error(client.post("/v2/models/digits/infer", data=body), 400, "is not JSON")
