"""GET /tasks/ID/image and POST /tasks/ID/replay."""

from __future__ import annotations

from typing import Any

import pytest
from api_rig import (
    FakeWorker,
    assert_problem,
    form,
    npy_image,
    picture,
    post_async,
    post_batch,
    raw_form,
    raw_image,
    services_of,
)
from flask import Flask
from flask.testing import FlaskClient
from gunicorn.http.body import LengthReader
from gunicorn.http.unreader import IterUnreader

from api.server.body_budget import BodyBudget
from api.server.http_messages import HttpBody
from inference.storage.protocol import dead_letter_key

PICTURES = {"PNG": ("image/png", "png"), "JPEG": ("image/jpeg", "jpg"), "WEBP": ("image/webp", "webp")}


def key_of(app: Flask, task_id: str) -> str:
    return services_of(app).store.get(task_id).item.object_key


class TestImage:
    @pytest.mark.parametrize("kind", PICTURES)
    def test_of_a_picture_has_the_type_of_its_content(self, client: FlaskClient, idle_worker: FakeWorker, kind: str) -> None:
        image = picture(kind)
        task_id = post_async(client, form(image))
        waiting = client.get(f"/tasks/{task_id}/image")
        idle_worker.work_off()
        ended = client.get(f"/tasks/{task_id}/image")
        media_type, suffix = PICTURES[kind]
        for response in (waiting, ended):
            assert (response.status_code, response.data, response.mimetype) == (200, image, media_type)
            assert response.headers["Content-Disposition"] == f'inline; filename="{task_id}.{suffix}"'
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert "Array-Shape" not in response.headers

    def test_of_an_array_says_how_to_read_it(self, client: FlaskClient) -> None:
        response = client.get(f"/tasks/{post_async(client)}/image")
        assert (response.data, response.mimetype) == (raw_image(), "application/octet-stream")
        assert (response.headers["Array-Shape"], response.headers["Array-Dtype"]) == ("8,8,1", "<f4")

    def test_of_an_array_file_is_the_file(self, client: FlaskClient) -> None:
        response = client.get(f"/tasks/{post_async(client, form(npy_image()))}/image")
        assert (response.data, response.mimetype) == (npy_image(), "application/octet-stream")
        assert "Array-Shape" not in response.headers

    def test_of_an_array_that_looks_like_a_page_is_none(self, client: FlaskClient) -> None:
        page = b"<script>alert(1)</script>".ljust(64)
        task_id = post_async(client, form(page, metadata={"shape": "8,8,1", "dtype": "uint8"}))
        assert client.get(f"/tasks/{task_id}/image").mimetype == "application/octet-stream"

    def test_that_was_removed(self, client: FlaskClient, app: Flask, idle_worker: FakeWorker) -> None:
        task_id = post_async(client)
        idle_worker.work_off()
        services_of(app).objects.delete(key_of(app, task_id))
        problem = assert_problem(client.get(f"/tasks/{task_id}/image"), 404, "image_not_found", task_id=task_id)
        assert "retention_hours" in problem["detail"]

    def test_of_a_dead_letter_is_its_copy(self, client: FlaskClient, app: Flask, idle_worker: FakeWorker) -> None:
        task_id = post_async(client)
        idle_worker.work_off()
        objects = services_of(app).objects
        objects.copy(key_of(app, task_id), dead_letter_key(task_id))
        objects.delete(key_of(app, task_id))
        assert client.get(f"/tasks/{task_id}/image").data == raw_image()

    def test_that_the_object_store_has_not_taken_yet(self, client: FlaskClient, app: Flask, idle_worker: FakeWorker) -> None:
        task_id = post_async(client)
        idle_worker.work_off()
        services_of(app).objects.delete(key_of(app, task_id))
        services_of(app).store.keep_image(task_id, b"late")
        assert client.get(f"/tasks/{task_id}/image").data == b"late"

    def test_that_a_request_only_named_is_not_handed_out(self, client: FlaskClient, app: Flask) -> None:
        """Else any object of an allowed bucket could be read by its key."""
        services_of(app).objects.put("uploads/2026/01/31/secret", raw_image())
        item = {"object": "s3://inference/uploads/2026/01/31/secret", "shape": "8,8,1", "dtype": "float32"}
        batch = client.post("/inference/batch", json={"items": [item], "mode": "async"}).json
        task_id = batch["items"][0]["task_id"]
        for path, status, code in (("image", 404, "image_not_found"), ("replay", 409, "task_not_finished")):
            send = client.get if path == "image" else client.post
            assert_problem(send(f"/tasks/{task_id}/{path}"), status, code, task_id=task_id)
        client.delete(f"/tasks/{task_id}")
        assert_problem(client.post(f"/tasks/{task_id}/replay"), 410, "image_gone", task_id=task_id)

    @pytest.mark.parametrize("path", ["/tasks/unknown/image", "/tasks/no%00id/image"])
    def test_of_an_unknown_task(self, client: FlaskClient, path: str) -> None:
        assert_problem(client.get(path), 404, "task_not_found")


class TestMemory:
    """An upload may be larger than any body, so what is read back counts among the bodies that a process holds."""

    @staticmethod
    def held(environ: dict[str, Any], budget: BodyBudget) -> HttpBody:
        body = HttpBody(LengthReader(IterUnreader(iter(())), 0))
        body.reserve_in(budget)
        environ["wsgi.input"] = body
        return body

    @pytest.mark.parametrize(("method", "path"), [("GET", "image"), ("POST", "replay")])
    def test_a_stored_image_is_counted_before_it_is_read(
        self, client: FlaskClient, idle_worker: FakeWorker, method: str, path: str
    ) -> None:
        image = form(npy_image())
        task_id = post_async(client, image)
        idle_worker.work_off()
        size = len(npy_image())
        for other, used, code in ((1, 0, "payload_too_large"), (size, 1, "service_unavailable"), (size, 0, "")):
            environ: dict[str, Any] = {}
            budget = BodyBudget(other)
            budget.add(used)
            body = self.held(environ, budget)
            response = client.open(f"/tasks/{task_id}/{path}", method=method, environ_overrides=environ)
            if code:
                assert_problem(response, 413 if code == "payload_too_large" else 503, code)
            else:
                assert (response.status_code, budget.used) == (200 if method == "GET" else 202, size)
            body.release()
            assert budget.used == used


class TestReplay:
    def test_is_a_new_task_of_the_same_image(self, client: FlaskClient, idle_worker: FakeWorker) -> None:
        fields = {"request_id": "mine", "priority": "3", "top_k": "2", "prediction": "false"}
        first = post_async(client, raw_form(4, **fields))
        client.delete(f"/tasks/{first}")
        response = client.post(f"/tasks/{first}/replay")
        task = response.json
        assert (response.status_code, response.headers["Location"]) == (202, task["urls"]["self"])
        assert response.headers["Task-Id"] == task["task_id"] != first
        assert (task["status"], task["request_id"], task["priority"], task["replay_of"]) == ("queued", "mine", 3, first)
        idle_worker.work_off()
        again = client.get(f"/tasks/{task['task_id']}").json
        assert (again["status"], again["replay_of"]) == ("succeeded", first)
        assert (len(again["result"]["top"]), "prediction" in again["result"]) == (2, False)
        assert client.get(f"/tasks/{task['task_id']}/image").data == raw_image(4)
        ended = client.get(f"/tasks/{first}").json
        assert (ended["status"], ended["replay_of"]) == ("canceled", None)

    def test_of_a_replay(self, client: FlaskClient, idle_worker: FakeWorker) -> None:
        first = post_async(client, form(picture("PNG")))
        idle_worker.work_off()
        second = client.post(f"/tasks/{first}/replay").json["task_id"]
        idle_worker.work_off()
        third = client.post(f"/tasks/{second}/replay").json
        assert (third["request_id"], third["replay_of"]) == (first, second)
        listed = client.get("/tasks", query_string={"request_id": first}).json["tasks"]
        assert [task["task_id"] for task in listed] == [third["task_id"], second, first]

    def test_of_a_task_of_a_batch_is_alone(self, client: FlaskClient, idle_worker: FakeWorker) -> None:
        batch = post_batch(client, [1, 2], mode="async").json
        idle_worker.work_off()
        task = client.post(f"/tasks/{batch['items'][1]['task_id']}/replay").json
        assert task["batch_id"] is None
        assert client.get(f"/tasks/{task['task_id']}/image").data == raw_image(2)

    def test_with_an_idempotency_key_runs_once(self, client: FlaskClient, idle_worker: FakeWorker) -> None:
        first, other = post_async(client), post_async(client)
        idle_worker.work_off()
        key = {"Idempotency-Key": "again"}
        once, twice = (client.post(f"/tasks/{first}/replay", headers=key) for _ in range(2))
        assert once.json["task_id"] == twice.json["task_id"]
        assert [response.headers.get("Idempotent-Replayed") for response in (once, twice)] == [None, "true"]
        assert_problem(client.post(f"/tasks/{other}/replay", headers=key), 409, "idempotency_conflict")

    def test_keeps_the_sinks_that_are_configured(self, make_app: Any) -> None:
        app = make_app(sinks=("jsonl",))
        client = app.test_client()
        task_id = post_async(client, raw_form(metadata={"sinks": ["jsonl"]}))
        nowhere = post_async(client, raw_form(metadata={"sinks": []}))
        for one, sinks in ((task_id, ("jsonl",)), (nowhere, ())):
            client.delete(f"/tasks/{one}")
            again = client.post(f"/tasks/{one}/replay").json["task_id"]
            assert services_of(app).store.get(again).sinks == sinks
        client = make_app().test_client()
        again = client.post(f"/tasks/{task_id}/replay").json["task_id"]
        assert services_of(app).store.get(again).sinks == ()

    @pytest.mark.parametrize("is_running", [False, True])
    def test_of_a_task_that_has_not_ended(self, client: FlaskClient, app: Flask, is_running: bool) -> None:
        task_id = post_async(client)
        if is_running:
            services_of(app).store.lease("w", [task_id])
            services_of(app).store.start("w", [task_id])
        problem = assert_problem(client.post(f"/tasks/{task_id}/replay"), 409, "task_not_finished", task_id=task_id)
        assert ("running" if is_running else "queued") in problem["detail"]
        assert "DELETE" in problem["expected"]

    def test_of_an_image_that_was_removed(self, client: FlaskClient, app: Flask, idle_worker: FakeWorker) -> None:
        task_id = post_async(client)
        idle_worker.work_off()
        services_of(app).objects.delete(key_of(app, task_id))
        assert_problem(client.post(f"/tasks/{task_id}/replay"), 410, "image_gone", task_id=task_id)

    def test_has_no_body(self, client: FlaskClient, idle_worker: FakeWorker) -> None:
        task_id = post_async(client)
        idle_worker.work_off()
        assert_problem(client.post(f"/tasks/{task_id}/replay", json={}), 400, "invalid_request", field="body")
        assert_problem(client.post(f"/tasks/{task_id}/replay?model=digits"), 400, "invalid_request", field="model")
        assert_problem(client.post("/tasks/unknown/replay"), 404, "task_not_found")
