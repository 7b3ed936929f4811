"""DELETE /tasks/ID?erase=true, DELETE /tasks?request_id=…&erase=true and GET /erasures/ID."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import orjson
import pytest
import redis
from api_rig import (
    RAW_METADATA,
    FakeWorker,
    MakeApp,
    assert_problem,
    encoded_form,
    post,
    post_async,
    raw_form,
    raw_image,
    services_of,
)
from callers import ALICE, BOB, READER, ROOT, ClientOf, find_callers
from flask import Flask
from flask.testing import FlaskClient
from support.traces import keys_with

from api.routes import erasures
from inference.broker.rejected import RejectedMessages
from inference.errors import ServiceUnavailable
from inference.relay.process import _housekeeping

ERASE = "?erase=true"


@pytest.fixture
def traces(redis_client: redis.Redis, app: Flask) -> Callable[[str], list[str]]:
    """Keys of the service and of its broker that contain an id or the bytes of an image."""
    prefix = services_of(app).settings.task_store.key_prefix

    def find(text: str, image: bytes = raw_image(3)) -> list[str]:
        return [one for match in (f"{prefix}:*", "predict.*") for one in keys_with(redis_client, match, text.encode(), image)]

    return find


def objects(app: Flask) -> list[str]:
    folder = services_of(app).settings.uploads_path
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


def test_a_task_that_has_ended(client: FlaskClient, app: Flask, worker: FakeWorker, traces: Callable[[str], list[str]]) -> None:
    task_id = post(client, raw_form(3, request_id="a person")).headers["Task-Id"]
    other = post(client, raw_form(4, request_id="a person")).headers["Task-Id"]

    response = client.delete(f"/tasks/{task_id}{ERASE}")

    assert response.status_code == 200
    document = response.json
    assert response.headers["Location"] == document["urls"]["self"] == f"/erasures/{document['erasure_id']}"
    assert {name: document[name] for name in ("status", "tasks", "stores", "task_ids", "has_more")} == {
        "status": "done",
        "tasks": 1,
        "stores": {"records": "erased", "images": "erased"},
        "task_ids": [task_id],
        "has_more": False,
    }
    assert traces(task_id) == []
    assert [name.rpartition("/")[2] for name in objects(app)] == [other]
    for path in ("", "/image", ERASE):
        call = client.delete if path == ERASE else client.get
        assert_problem(call(f"/tasks/{task_id}{path}"), 404, "task_not_found")
    assert [task["task_id"] for task in client.get("/tasks").json["tasks"]] == [other]


def test_a_task_that_waits_does_not_run_and_its_message_goes(
    client: FlaskClient, idle_worker: FakeWorker, traces: Callable[[str], list[str]]
) -> None:
    task_id, other = post_async(client, raw_form(3)), post_async(client, raw_form(4))
    assert any(one.startswith("predict.") for one in traces(task_id))
    assert client.delete(f"/tasks/{task_id}{ERASE}").status_code == 200
    assert traces(task_id) == []
    idle_worker.work_off()
    assert [item.task_id for message in idle_worker.messages for item in message.items] == [other]
    assert client.get(f"/tasks/{other}").json["status"] == "succeeded"


def test_an_item_of_a_batch_leaves_its_message_and_the_others_run(
    client: FlaskClient, idle_worker: FakeWorker, traces: Callable[[str], list[str]]
) -> None:
    data = encoded_form([raw_image(number) for number in (2, 3, 4)], {"shape": RAW_METADATA["shape"], "dtype": "float32"})
    batch = client.post("/inference/batch", headers={"Prefer": "respond-async"}, **data).json
    first, erased, last = (item["task_id"] for item in batch["items"])
    assert client.delete(f"/tasks/{erased}{ERASE}").status_code == 200
    assert traces(erased) == []
    idle_worker.work_off()
    items = client.get(f"/batches/{batch['batch_id']}").json["items"]
    assert [(item["status"], item["task_id"]) for item in items] == [("succeeded", first), ("gone", None), ("succeeded", last)]
    assert items[1]["error"]["detail"] == "the task was erased"

    for task_id in (first, last):
        assert client.delete(f"/tasks/{task_id}{ERASE}").status_code == 200
    assert_problem(client.get(f"/batches/{batch['batch_id']}"), 404, "batch_not_found")


def test_all_tasks_of_a_request_id(
    client: FlaskClient, traces: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasures, "_LIMIT", 2)
    task_ids = [post_async(client, raw_form(number, request_id="a person & more")) for number in (1, 2, 3)]
    other = post_async(client)
    path = "/tasks?request_id=a%20person%20%26%20more&erase=true"

    document = client.delete(path).json
    assert (document["task_ids"], document["has_more"], document["tasks"]) == (task_ids[:0:-1], True, 2)
    document = client.delete(path).json
    assert (document["task_ids"], document["has_more"]) == (task_ids[:1], False)
    assert_problem(client.delete(path), 404, "task_not_found")
    assert traces("a person") == []
    assert [task["task_id"] for task in client.get("/tasks").json["tasks"]] == [other]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/tasks?erase=true", "request_id"),
        ("/tasks?request_id=&erase=true", "request_id"),
        ("/tasks?request_id=r", "erase"),
        ("/tasks?request_id=r&erase=false", "erase"),
        ("/tasks?request_id=r&erase=maybe", "erase"),
        ("/tasks?request_id=r&erase=true&status=queued", "status"),
        ("/tasks/0?erase=maybe", "erase"),
        ("/tasks/0?erase=true&erase=true", "erase"),
    ],
)
def test_what_is_not_clear_erases_nothing(client: FlaskClient, path: str, field: str) -> None:
    task_id = post_async(client, raw_form(request_id="r"))
    assert_problem(client.delete(path), 400, "invalid_request", field=field)
    assert client.get(f"/tasks/{task_id}").status_code == 200


def test_erase_false_cancels(client: FlaskClient) -> None:
    task_id = post_async(client)
    assert client.delete(f"/tasks/{task_id}?erase=false").json["status"] == "canceled"


def test_progress_names_no_task(client: FlaskClient) -> None:
    task_id = post_async(client)
    erased = client.delete(f"/tasks/{task_id}{ERASE}").json
    progress = client.get(erased["urls"]["self"])
    assert progress.json == {name: value for name, value in erased.items() if name not in {"task_ids", "has_more"}}
    assert task_id.encode() not in progress.data
    assert_problem(client.get("/erasures/unknown"), 404, "erasure_not_found")
    assert_problem(client.get("/erasures/not:an:id"), 404, "erasure_not_found")


def test_a_sink_is_pending_until_the_relay_has_erased_its_result(
    make_app: MakeApp, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference.lifecycle.erasures._WAIT_S", 0.05)
    app = make_app(sinks=("jsonl",))
    client, worker = app.test_client(), FakeWorker(services_of(app), redis_client)
    task_id = post_async(client)
    worker.work_off()
    response = client.delete(f"/tasks/{task_id}{ERASE}")
    assert (response.status_code, response.json["status"]) == (202, "pending")
    assert response.json["stores"] == {"records": "erased", "images": "erased", "jsonl": "pending"}
    assert_problem(client.get(f"/tasks/{task_id}"), 404, "task_not_found")


def test_while_the_object_store_is_down_the_image_is_pending_and_the_relay_erases_it(
    client: FlaskClient, app: Flask, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(key: str) -> None:
        raise ServiceUnavailable(f"{key} cannot be reached")

    monkeypatch.setattr("inference.lifecycle.erasures._WAIT_S", 0.05)
    task_id = post(client).headers["Task-Id"]
    with monkeypatch.context() as patched:
        patched.setattr(services_of(app).objects, "erase", fail)
        response = client.delete(f"/tasks/{task_id}{ERASE}")
    assert (response.status_code, response.json["stores"]["images"]) == (202, "pending")
    assert len(objects(app)) == 1
    _housekeeping(services_of(app).settings, services_of(app))._jobs["objects of erased tasks"]()
    assert objects(app) == []
    assert client.get(response.headers["Location"]).json["status"] == "done"


def test_rejected_messages_that_name_the_task_go(client: FlaskClient, app: Flask, traces: Callable[[str], list[str]]) -> None:
    services = services_of(app)
    task_id = post_async(client, raw_form(3))
    rejected = RejectedMessages(services.redis, services.settings.task_store.key_prefix)
    rejected.add("predict.digits", {"body": "e30=", "headers": {"id": task_id}}, "odd")
    other = rejected.add("predict.digits", {"unreadable": "x"}, "odd")
    assert client.delete(f"/tasks/{task_id}{ERASE}").status_code == 200
    assert [message.message_id for message in rejected.list(10)] == [other]
    assert traces(task_id) == []


def test_callers_erase_what_is_theirs_and_admins_everything(client: FlaskClient, app: Flask) -> None:
    find_callers(app)
    alice, bob, reader, root = (ClientOf(client, caller) for caller in (ALICE, BOB, READER, ROOT))

    def submitted(owner: ClientOf) -> str:
        response = owner.post("/inference", data=raw_form(request_id="shared"), headers={"Prefer": "respond-async"})
        return str(response.headers["Task-Id"])

    hers, his, another = submitted(alice), submitted(bob), submitted(bob)
    for other in (alice, reader):
        assert_problem(other.delete(f"/tasks/{his}{ERASE}"), 404, "task_not_found")
    erased = alice.delete("/tasks?request_id=shared&erase=true").json
    assert erased["task_ids"] == [hers]
    progress = erased["urls"]["self"]
    assert [caller.get(progress).status_code for caller in (alice, bob, reader, root)] == [200, 404, 200, 200]
    unknown = uuid.uuid4().hex
    answers = [bob.get(f"/erasures/{found}").text.replace(found, "ID") for found in (erased["erasure_id"], unknown)]
    assert answers[0] == answers[1]
    assert_problem(alice.delete("/tasks?request_id=shared&erase=true"), 404, "task_not_found")
    assert root.delete(f"/tasks/{his}{ERASE}").status_code == 200
    assert root.delete("/tasks?request_id=shared&erase=true").json["task_ids"] == [another]


def test_an_erasure_is_in_the_audit_log(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    task_ids = [post_async(client, raw_form(request_id="r")) for _ in range(2)]
    erasures_done = [client.delete(path).json for path in (f"/tasks/{task_ids[0]}{ERASE}", "/tasks?request_id=r&erase=true")]
    events = [orjson.loads(record.message) for record in caplog.records if record.name == "audit"]
    assert [(event["what"], event["target"], event["tasks"], event["erasure_id"]) for event in events] == [
        ("task.erase", task_ids[0], 1, erasures_done[0]["erasure_id"]),
        ("task.erase", "tasks with the request id r", 1, erasures_done[1]["erasure_id"]),
    ]


def test_an_erasure_that_fails_is_in_the_audit_log(
    client: FlaskClient, app: Flask, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ServiceUnavailable("the task store does not answer")

    task_id = post_async(client)
    monkeypatch.setattr(services_of(app).erasures, "erase", fail)
    assert_problem(client.delete(f"/tasks/{task_id}{ERASE}"), 503, "service_unavailable")
    (event,) = [orjson.loads(record.message) for record in caplog.records if record.name == "audit"]
    assert (event["what"], event["target"], event["outcome"]) == ("task.erase", task_id, "service_unavailable")
