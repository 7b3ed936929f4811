"""POST /inference/batch, answered at once: many images in, an item each out, in order."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
import redis
from api_rig import (
    RAW_METADATA,
    Background,
    FakeWorker,
    assert_problem,
    failure,
    picture,
    post_batch,
    raw_form,
    raw_image,
    services_of,
    vector,
    wait_until,
)
from flask import Flask
from flask.testing import FlaskClient
from support.task_pages import ids_of_request

from api.components import components_of
from inference.errors import PredictionFailed

MEMBERS = {"batch_id", "status", "counts", "items", "urls"}
ITEM_MEMBERS = {"status", "task_id", "request_id", "model", "result", "error"}


def statuses(document: dict[str, Any]) -> list[str]:
    return [item["status"] for item in document["items"]]


def codes(document: dict[str, Any]) -> list[str | None]:
    return [item["error"] and item["error"]["code"] for item in document["items"]]


def classes(document: dict[str, Any]) -> list[int | None]:
    return [item["result"] and item["result"]["class"] for item in document["items"]]


class TestTheAnswer:
    def test_each_image_has_its_own_item_in_order(self, client: FlaskClient, worker: FakeWorker, app: Flask) -> None:
        response = post_batch(client, [7, 3, 9, 3])
        assert response.status_code == 200
        body = response.json
        assert set(body) == MEMBERS
        assert response.headers["Batch-Id"] == body["batch_id"]
        assert classes(body) == [7, 3, 9, 3]
        assert body["status"] == "ended"
        assert {status: count for status, count in body["counts"].items() if count} == {"succeeded": 4}
        spec = services_of(app).models.get("digits")
        for item, number in zip(body["items"], [7, 3, 9, 3], strict=True):
            assert set(item) == ITEM_MEMBERS
            assert item["model"] == {"name": "digits", "version": "1", "digest": spec.digest}
            np.testing.assert_array_equal(np.float32(item["result"]["prediction"]), vector(number))
        assert len({item["request_id"] for item in body["items"]}) == 4

    def test_one_message_carries_them_all(self, client: FlaskClient, worker: FakeWorker) -> None:
        body = post_batch(client, range(8)).json
        (message,) = worker.messages
        assert [item.task_id for item in message.items] == [item["task_id"] for item in body["items"]]

    def test_a_message_has_no_more_than_a_batch_of_the_model(self, make_app: Any, redis_client: redis.Redis) -> None:
        app = make_app(worker={"max_batch_size": 3})
        response = post_batch(app.test_client(), range(8), headers={"Prefer": "respond-async"})
        worker = FakeWorker(services_of(app), redis_client)
        worker.work_off()
        sent = [item.task_id for message in worker.messages for item in message.items]
        assert [len(message.items) for message in worker.messages] == [3, 3, 2]
        assert sent == [item["task_id"] for item in response.json["items"]]

    def test_each_item_is_a_task_that_names_its_batch(self, client: FlaskClient, worker: FakeWorker) -> None:
        body = post_batch(client, [1, 2]).json
        for item in body["items"]:
            task = client.get(f"/tasks/{item['task_id']}").json
            assert (task["status"], task["batch_id"]) == ("succeeded", body["batch_id"])
            assert task["result"]["class"] == item["result"]["class"]
            assert task["timings"]["store_ms"] > 0
        alone = client.post("/inference", data=raw_form(1)).json
        assert client.get(f"/tasks/{alone['task_id']}").json["batch_id"] is None

    def test_a_batch_of_one(self, client: FlaskClient, worker: FakeWorker) -> None:
        assert classes(post_batch(client, [4]).json) == [4]

    def test_pictures_need_no_metadata(self, client: FlaskClient, worker: FakeWorker) -> None:
        response = post_batch(client, [picture("PNG"), picture("JPEG", 64), picture("WEBP", 64)], metadata=None)
        assert statuses(response.json) == ["succeeded"] * 3
        assert [item.header.format for message in worker.messages for item in message.items] == ["png", "jpeg", "webp"]

    def test_the_stored_batch_is_the_same(self, client: FlaskClient, worker: FakeWorker) -> None:
        body = post_batch(client, [1, b"no image", 2]).json
        assert client.get(body["urls"]["self"]).json == body


class TestMetadata:
    def test_one_object_is_for_all(self, client: FlaskClient, worker: FakeWorker) -> None:
        body = post_batch(client, [1, 2], metadata=RAW_METADATA | {"request_id": "r"}).json
        assert [item["request_id"] for item in body["items"]] == ["r", "r"]
        assert [task["task_id"] for task in client.get("/tasks?request_id=r").json["tasks"]] == [
            item["task_id"] for item in reversed(body["items"])
        ]

    def test_a_list_has_one_each(self, client: FlaskClient, worker: FakeWorker) -> None:
        metadata = [RAW_METADATA | {"request_id": f"r{number}"} for number in range(3)]
        body = post_batch(client, range(3), metadata=metadata).json
        assert [item["request_id"] for item in body["items"]] == ["r0", "r1", "r2"]
        assert classes(body) == [0, 1, 2]

    def test_fields_of_the_form_are_for_all_and_an_items_own_go_before_them(
        self, client: FlaskClient, worker: FakeWorker, app: Flask
    ) -> None:
        metadata = [RAW_METADATA, RAW_METADATA | {"deadline_s": 7}]
        body = post_batch(client, range(2), metadata=metadata, deadline_s="5").json
        records = services_of(app).store.get_many([item["task_id"] for item in body["items"]])
        assert [record.deadline_at_ms - record.created_at_ms for record in records if record] == [5000, 7000]

    @pytest.mark.parametrize("prefer", [None, "respond-async"])
    def test_deadlines_are_as_for_one(self, client: FlaskClient, app: Flask, idle_worker: FakeWorker, prefer: str | None) -> None:
        idle_worker.start()
        body = post_batch(client, [1], headers={"Prefer": prefer} if prefer else {}).json
        record = services_of(app).store.get(body["items"][0]["task_id"])
        assert record.deadline_at_ms - record.created_at_ms == (3_600_000 if prefer else 30_000)

    def test_who_goes_first_goes_first(self, client: FlaskClient, app: Flask, redis_client: redis.Redis) -> None:
        metadata = [RAW_METADATA | {"priority": priority} for priority in (0, 9, 0, 9)]
        response = post_batch(client, range(4), metadata=metadata, headers={"Prefer": "respond-async"})
        worker = FakeWorker(services_of(app), redis_client)
        worker.work_off()
        numbers = [[self._number(response.json, item.task_id) for item in message.items] for message in worker.messages]
        assert numbers == [[1, 3], [0, 2]]

    @staticmethod
    def _number(body: dict[str, Any], task_id: str) -> int:
        return [item["task_id"] for item in body["items"]].index(task_id)

    def test_sinks_are_each_items_own(self, make_app: Any) -> None:
        app = make_app(sinks=("jsonl",))
        metadata = [RAW_METADATA, RAW_METADATA | {"sinks": []}, RAW_METADATA | {"sinks": ["kafka"]}]
        body = post_batch(app.test_client(), range(3), metadata=metadata, headers={"Prefer": "respond-async"}).json
        assert codes(body) == [None, None, "invalid_metadata"]


class TestABadItem:
    def test_it_is_refused_in_its_place_and_the_others_go_on(self, client: FlaskClient, worker: FakeWorker) -> None:
        bad = {
            "not the model's shape": (bytes(64), RAW_METADATA | {"shape": "4,4,1"}, "invalid_metadata"),
            "no such model": (raw_image(), RAW_METADATA | {"model": "nobody"}, "model_not_found"),
            "empty": (b"", RAW_METADATA, "invalid_image"),
            "a GIF": (b"GIF89a" + bytes(20), {}, "unsupported_image_type"),
            "no object": (raw_image(), "metadata", "invalid_metadata"),
            "priority": (raw_image(), RAW_METADATA | {"priority": 10}, "invalid_metadata"),
            "deadline": (raw_image(), RAW_METADATA | {"deadline_s": 10**9}, "invalid_metadata"),
        }
        images: list[Any] = [3]
        metadata: list[Any] = [RAW_METADATA]
        for image, options, _ in bad.values():
            images += [image, 5]
            metadata += [options, RAW_METADATA]
        response = post_batch(client, images, metadata=metadata)
        assert response.status_code == 200
        body = response.json
        assert statuses(body) == ["succeeded"] + ["refused", "succeeded"] * len(bad)
        assert classes(body)[::2] == [3] + [5] * len(bad)
        assert codes(body)[1::2] == [code for _, _, code in bad.values()]
        refused = body["items"][1]
        assert refused["task_id"] is None
        assert refused["error"]["status"] == 400
        assert (body["counts"]["refused"], body["counts"]["succeeded"]) == (len(bad), len(bad) + 1)
        assert body["status"] == "ended"

    @pytest.mark.parametrize("bad", [raw_image()[:-1], raw_image() + b"!", b"", b"GIF89a" + bytes(20)])
    def test_what_is_said_for_all_may_be_wrong_for_one(self, client: FlaskClient, worker: FakeWorker, bad: bytes) -> None:
        body = post_batch(client, [1, bad, 2, bad, 3], metadata=RAW_METADATA).json
        assert classes(body) == [1, None, 2, None, 3]
        assert codes(body)[1::2] == ["invalid_image"] * 2

    def test_what_only_a_worker_finds_fails_alone_too(self, client: FlaskClient, worker: FakeWorker) -> None:
        broken = picture("PNG", 64)[:60]
        body = post_batch(client, [1, broken, 2], metadata=[RAW_METADATA, {}, RAW_METADATA]).json
        assert statuses(body) == ["succeeded", "failed", "succeeded"]
        assert codes(body)[1] == "invalid_image"
        assert client.get(f"/tasks/{body['items'][1]['task_id']}").json["status"] == "failed"

    def test_a_failed_prediction_is_no_failed_request(self, client: FlaskClient, worker: FakeWorker) -> None:
        worker.answer = lambda *_: failure(PredictionFailed("no"))
        response = post_batch(client, [1, 2])
        assert response.status_code == 200
        assert codes(response.json) == ["prediction_failed"] * 2

    def test_nothing_but_bad_items(self, client: FlaskClient, redis_client: redis.Redis) -> None:
        response = post_batch(client, [b"", b""], metadata=None)
        assert response.status_code == 200
        assert statuses(response.json) == ["refused", "refused"]
        assert client.get(response.json["urls"]["self"]).json == response.json


class TestARefusedRequest:
    """The request is refused as a whole: nothing of it is stored."""

    def test_no_image(self, client: FlaskClient) -> None:
        assert_problem(post_batch(client, []), 400, "invalid_request", field="image")

    def test_too_many_images(self, make_app: Any) -> None:
        client = make_app(batch={"max_items": 3}).test_client()
        problem = assert_problem(post_batch(client, range(4)), 400, "invalid_request", field="image")
        assert "at most 3" in problem["expected"]

    def test_more_than_may_ever_wait(self, make_app: Any) -> None:
        client = make_app(limits={"max_queue_depth": 2}).test_client()
        assert "at most 2" in assert_problem(post_batch(client, range(3)), 400, "invalid_request")["expected"]

    def test_too_many_for_flask(self, make_app: Any) -> None:
        client = make_app(batch={"max_items": 1500}).test_client()
        assert_problem(post_batch(client, [b""] * 1501, metadata=None), 400, "invalid_request", field="image")

    def test_more_parts_than_a_form_may_have(self, make_app: Any) -> None:
        client = make_app(batch={"max_items": 3}).test_client()
        problem = assert_problem(post_batch(client, [b""] * 1010, metadata=None), 413, "payload_too_large", field="image")
        assert problem["expected"] == "at most 3 (batch.max_items)"

    def test_too_many_bytes(self, make_app: Any) -> None:
        client = make_app(api={"max_body_bytes": 2000}).test_client()
        assert_problem(post_batch(client, range(8)), 413, "payload_too_large")

    @pytest.mark.parametrize(
        "metadata", ["{", "3", [RAW_METADATA], [RAW_METADATA] * 3], ids=["no JSON", "no object", "too few", "too many"]
    )
    def test_metadata(self, client: FlaskClient, metadata: Any) -> None:
        assert_problem(post_batch(client, range(2), metadata=metadata), 400, "invalid_metadata", field="metadata")

    def test_a_mode_that_there_is_not(self, client: FlaskClient) -> None:
        assert_problem(post_batch(client, range(2), mode="later"), 400, "invalid_request", field="mode")


class TestWaiting:
    @pytest.mark.parametrize(
        "how",
        [
            {"headers": {"Prefer": "respond-async"}},
            {"headers": {"Prefer": "wait=0"}},
            {"mode": "async"},
            {"metadata": RAW_METADATA | {"mode": "async"}},
        ],
    )
    def test_who_does_not_wait_gets_the_batch(self, client: FlaskClient, how: dict[str, Any]) -> None:
        response = post_batch(client, [1, b"", 2], **how)
        assert response.status_code == 202
        assert response.headers["Location"] == f"/batches/{response.json['batch_id']}"
        assert statuses(response.json) == ["queued", "refused", "queued"]
        assert response.json["status"] == "running"
        assert client.get(response.headers["Location"]).json == response.json

    def test_who_waits_a_while(self, client: FlaskClient, worker: FakeWorker) -> None:
        worker.gate.clear()
        response = post_batch(client, [1, 2], headers={"Prefer": "wait=0.05"})
        assert response.status_code == 202
        assert response.headers["Preference-Applied"] == "wait=0.05"
        worker.gate.set()
        assert post_batch(client, [1, 2], headers={"Prefer": "wait=30"}).status_code == 200

    def test_asking_and_waiting(self, client: FlaskClient, app: Flask, worker: FakeWorker) -> None:
        worker.gate.clear()
        url = post_batch(client, [1, 2], mode="async").headers["Location"]
        waiting = Background(lambda: app.test_client().get(f"{url}?wait=30"))
        wait_until(lambda: components_of(app).replies._waiters, "the waiter")
        worker.gate.set()
        assert classes(waiting.response().json) == [1, 2]
        assert client.get(f"{url}?wait=30").json["status"] == "ended"

    def test_asking_for_a_while(self, client: FlaskClient) -> None:
        url = post_batch(client, [1], mode="async").headers["Location"]
        assert client.get(f"{url}?wait=0.02").json["status"] == "running"
        assert_problem(client.get(f"{url}?wait=soon"), 400, "invalid_request", field="wait")

    def test_an_unknown_batch(self, client: FlaskClient) -> None:
        for call in (client.get, client.delete):
            assert_problem(call("/batches/nobody?wait=3"), 404, "batch_not_found", batch_id="nobody")

    def test_who_waits_past_every_deadline_is_told_which_batch_goes_on(self, client: FlaskClient) -> None:
        """No relay runs: after a grace the wait ends by itself."""
        response = post_batch(client, [1, 2], deadline_s="0.01")
        problem = assert_problem(response, 504, "wait_timeout")
        assert response.headers["Location"] == f"/batches/{problem['batch_id']}"

    def test_expired_items_are_items(self, client: FlaskClient, app: Flask, worker: FakeWorker) -> None:
        worker.gate.clear()
        waiting = Background(lambda: post_batch(app.test_client(), [1, 2], deadline_s="0.2", request_id="late"))
        wait_until(lambda: len(services_of(app).store.expire_due(10)), "the deadline")
        worker.gate.set()
        response = waiting.response()
        assert response.status_code == 200
        assert codes(response.json) == ["deadline_exceeded"] * 2

    def test_a_reply_that_got_lost_is_found_in_the_records(
        self, app: Flask, worker: FakeWorker, redis_client: redis.Redis
    ) -> None:
        worker.gate.clear()
        waiting = Background(lambda: post_batch(app.test_client(), [1, 2]))
        wait_until(lambda: worker.messages, "the running task")
        for connection in redis_client.client_list(_type="pubsub"):
            redis_client.client_kill_filter(_id=connection["id"])
        worker.gate.set()
        assert classes(waiting.response().json) == [1, 2]

    def test_many_who_wait_each_get_their_own(self, app: Flask, worker: FakeWorker) -> None:
        waiting = [Background(lambda n=n: post_batch(app.test_client(), [n, n + 1, n])) for n in range(6)]
        assert [classes(one.response().json) for one in waiting] == [[n, n + 1, n] for n in range(6)]

    def test_waiters_are_forgotten(self, app: Flask, client: FlaskClient, worker: FakeWorker) -> None:
        post_batch(client, [1, 2])
        worker.gate.clear()
        url = post_batch(client, [1, 2], mode="async").headers["Location"]
        client.get(f"{url}?wait=0.01")
        assert components_of(app).replies._waiters == {}


class TestCanceling:
    def test_what_has_not_ended_is_canceled(self, client: FlaskClient, app: Flask, idle_worker: FakeWorker) -> None:
        body = post_batch(client, [1, 2, b"", 3], mode="async").json
        services_of(app).store.cancel(body["items"][0]["task_id"])
        response = client.delete(body["urls"]["cancel"])
        assert response.status_code == 200
        assert statuses(response.json) == ["canceled", "canceled", "refused", "canceled"]
        idle_worker.work_off()
        assert client.get(body["urls"]["self"]).json == response.json

    def test_it_ends_the_wait(self, client: FlaskClient, app: Flask, worker: FakeWorker) -> None:
        worker.gate.clear()
        waiting = Background(lambda: post_batch(app.test_client(), [1, 2], request_id="r"))
        (first, _) = wait_until(lambda: ids_of_request(services_of(app).store, "r"), "the tasks")
        client.delete(f"/batches/{services_of(app).store.get(first).batch_id}")
        worker.gate.set()
        assert codes(waiting.response().json) == ["task_canceled"] * 2

    def test_what_has_ended_stays(self, client: FlaskClient, worker: FakeWorker) -> None:
        body = post_batch(client, [1, 2]).json
        problem = assert_problem(client.delete(body["urls"]["cancel"]), 409, "task_already_finished")
        assert problem["batch_id"] == body["batch_id"]
        assert client.get(body["urls"]["self"]).json == body


def test_the_result_is_written_as_float32(client: FlaskClient, worker: FakeWorker) -> None:
    values = orjson.loads(post_batch(client, [7]).data)["items"][0]["result"]["prediction"]
    np.testing.assert_array_equal(np.float32(values), vector(7))
