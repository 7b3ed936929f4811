"""`top_k` and `prediction` of a request: every answer for its task has the parts that it asked for, and no others."""

from __future__ import annotations

import dataclasses
from typing import Any

import orjson
import pytest
from api_rig import (
    RAW_METADATA,
    FakeWorker,
    assert_problem,
    encoded_form,
    form,
    post,
    post_async,
    post_batch,
    raw_form,
    raw_image,
    services_of,
    success,
    vector,
    wait_until,
)
from flask import Flask
from flask.testing import FlaskClient

from inference.domain import AnswerOptions
from inference.models.answers import AnswerBuilder
from inference.models.registry import reference
from inference.models.spec import Task
from inference.sinks.protocol import result_document

USUAL = {"class", "label", "confidence_level", "prediction"}


def top(number: int, count: int) -> list[dict[str, Any]]:
    """The list that the stand-in for the worker answers."""
    values = vector(number)
    order = sorted(range(10), key=lambda index: -values[index])[:count]
    return [{"class": index, "label": str(index), "confidence": pytest.approx(float(values[index]))} for index in order]


@pytest.mark.parametrize("place", ["metadata", "field", "query"])
def test_a_request_gets_the_parts_that_it_asks_for(client: FlaskClient, worker: FakeWorker, place: str) -> None:
    options: dict[str, Any] = {"top_k": 3, "prediction": False}
    texts = {"top_k": "3", "prediction": "false"}
    match place:
        case "metadata":
            response = post(client, raw_form(4, metadata=options))
        case "field":
            response = post(client, raw_form(4, **texts))
        case _:
            response = post(client, raw_form(4), query_string=texts)
    assert response.status_code == 200, response.data
    assert set(response.json["response"]) == USUAL - {"prediction"} | {"top"}
    assert response.json["response"]["top"] == top(4, 3)


@pytest.mark.parametrize(
    ("options", "members"),
    [
        ({}, USUAL),
        ({"top_k": ""}, USUAL),
        ({"prediction": ""}, USUAL),
        ({"prediction": "True"}, USUAL),
        ({"prediction": "0"}, USUAL - {"prediction"}),
        ({"prediction": "False"}, USUAL - {"prediction"}),
        ({"top_k": "1"}, USUAL | {"top"}),
    ],
    ids=lambda value: str(sorted(value)),
)
def test_each_part_has_a_default(client: FlaskClient, worker: FakeWorker, options: dict[str, str], members: set[str]) -> None:
    sent = encoded_form([raw_image()], {"metadata": orjson.dumps(RAW_METADATA).decode(), **options})
    assert set(client.post("/inference", **sent).json["response"]) == members


def test_more_classes_than_there_are_means_all(client: FlaskClient, worker: FakeWorker) -> None:
    assert post(client, raw_form(4, top_k="10000000000000")).json["response"]["top"] == top(4, 10)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"top_k": 0}, "metadata.top_k"),
        ({"top_k": -1}, "metadata.top_k"),
        ({"top_k": 1.5}, "metadata.top_k"),
        ({"top_k": True}, "metadata.top_k"),
        ({"top_k": "many"}, "metadata.top_k"),
        ({"top_k": "9" * 5000}, "metadata.top_k"),
        ({"top_k": "inf"}, "metadata.top_k"),
        ({"top_k": [3]}, "metadata.top_k"),
        ({"prediction": "no vector"}, "metadata.prediction"),
        ({"prediction": 2}, "metadata.prediction"),
        ({"prediction": []}, "metadata.prediction"),
        ({"predictions": False}, "metadata.predictions"),
        ({"topk": 3}, "metadata.topk"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_wrong_value_is_refused_with_its_field(client: FlaskClient, options: dict[str, Any], field: str) -> None:
    problem = assert_problem(post(client, raw_form(metadata=options)), 400, "invalid_metadata", field=field)
    assert problem["expected"]


def test_different_values_in_two_places_are_refused(client: FlaskClient, worker: FakeWorker) -> None:
    refused = post(client, raw_form(metadata={"top_k": 3}, top_k="4"))
    assert_problem(refused, 400, "invalid_metadata", field="metadata.top_k")
    same = raw_form(metadata={"top_k": 3, "prediction": False}, top_k="3", prediction="False")
    assert post(client, same).status_code == 200


def test_a_task_keeps_its_parts(client: FlaskClient, worker: FakeWorker, app: Flask) -> None:
    task_id = post_async(client, raw_form(4, metadata={"top_k": 2, "prediction": False}))
    result = client.get(f"/tasks/{task_id}?wait=10").json["result"]
    assert set(result) == USUAL - {"prediction"} | {"top"}
    assert result["top"] == top(4, 2)
    listed = client.get(f"/tasks?request_id={task_id}&prediction=true").json["tasks"]
    assert [task["result"] for task in listed] == [result]
    assert worker.messages[0].items[0].answer == AnswerOptions(2, prediction=False)


def test_usual_messages_say_nothing_about_the_answer(client: FlaskClient, worker: FakeWorker) -> None:
    post(client)
    assert worker.messages[0].items[0].answer is None


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_repeated_request_gets_the_same_parts(client: FlaskClient, worker: FakeWorker, mode: str) -> None:
    headers = {"Idempotency-Key": "one"}
    data = {"metadata": {"top_k": 2, "prediction": False, "mode": mode}}
    first = post(client, raw_form(5, **data), headers=headers)
    task_url = f"/tasks/{first.json['task_id']}"
    wait_until(lambda: client.get(task_url).json["status"] == "succeeded", "the task has ended")
    again = post(client, raw_form(5, metadata={"top_k": 2, "prediction": False, "mode": "sync"}), headers=headers)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert set(again.json["response"]) == USUAL - {"prediction"} | {"top"}
    assert again.json["response"]["top"] == top(5, 2)
    other = post(client, raw_form(5, metadata={"top_k": 3, "prediction": False}), headers=headers)
    assert_problem(other, 409, "idempotency_conflict")


def test_items_of_a_batch_have_parts_of_their_own(client: FlaskClient, worker: FakeWorker) -> None:
    usual = {"shape": "8,8,1", "dtype": "float32"}
    metadata = [usual, usual | {"top_k": 2}, usual | {"prediction": False}, usual | {"top_k": 0}]
    response = post_batch(client, [1, 2, 3, 4], metadata=metadata)
    assert response.status_code == 200
    items = response.json["items"]
    assert [set(item["result"] or ()) for item in items] == [USUAL, USUAL | {"top"}, USUAL - {"prediction"}, set()]
    assert items[1]["result"]["top"] == top(2, 2)
    assert items[3]["error"]["field"] == "metadata.top_k"
    assert client.get(response.json["urls"]["self"]).json["items"] == items


def test_a_batch_has_parts_for_all_its_items(client: FlaskClient, worker: FakeWorker) -> None:
    response = post_batch(client, [1, 2], top_k="2", prediction="false")
    results = [item["result"] for item in response.json["items"]]
    assert [result["top"] for result in results] == [top(1, 2), top(2, 2)]
    assert not any("prediction" in result for result in results)


def test_a_model_may_have_a_default(client: FlaskClient, app: Flask, worker: FakeWorker) -> None:
    spec = services_of(app).models.get("digits").model_copy(update={"top_k": 4})
    builder = AnswerBuilder(spec)

    def answer(item: Any, _: bytes) -> Any:
        outcome = success()
        outcome.result = builder.build(vector(3), item.top_k)
        return outcome

    worker.answer = answer
    assert post(client).json["response"]["top"] == top(3, 4)
    assert post(client, raw_form(metadata={"top_k": 1})).json["response"]["top"] == top(3, 1)


def test_a_multi_label_answer_has_its_labels(client: FlaskClient, app: Flask, worker: FakeWorker) -> None:
    spec = (
        services_of(app).models.get("digits").model_copy(update={"task": Task.MULTI_LABEL, "threshold": {"3": 0.95, "7": 0.005}})
    )
    builder = AnswerBuilder(spec)

    def answer(_: Any, __: bytes) -> Any:
        outcome = success()
        outcome.result = builder.build(vector(3))
        return outcome

    worker.answer = answer
    result = post(client, form(b"\0" * 256, metadata={"shape": "8,8,1", "dtype": "float32"})).json["response"]
    assert (result["class"], result["confident"]) == (3, False)
    assert result["labels"] == [{"class": 7, "label": "7", "confidence": pytest.approx(float(vector(3)[7]))}]


def test_documents_of_sinks_always_have_the_vector(client: FlaskClient, app: Flask, worker: FakeWorker) -> None:
    model = reference(services_of(app).models.get("digits"))
    worker.answer = lambda item, _: dataclasses.replace(success(4, item.top_k), model=model)
    task_id = post_async(client, raw_form(4, metadata={"top_k": 2, "prediction": False}))
    client.get(f"/tasks/{task_id}?wait=10")
    (completed,) = services_of(app).store.get_completed([task_id])
    assert completed is not None
    document = result_document(completed, "pipeline")
    assert document["prediction"].tolist() == vector(4).tolist()
    assert [row["class"] for row in document["top"]] == [row["class"] for row in top(4, 2)]
