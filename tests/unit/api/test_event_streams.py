"""Event streams of tasks: what a client gets, on a real record store, and what is left when it has gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import redis
from api_rig import FakeWorker, MakeApp, assert_problem, post_async, post_batch, services_of, wait_until
from event_reading import Watch
from flask import Flask
from flask.testing import FlaskClient
from support.samples import a_request, a_success

from api.components import components_of, install_components
from api.events.hub import EventHub
from inference.lifecycle.task_changes import TaskChanges
from inference.task_store import Commit


def listeners(client: redis.Redis, key_prefix: str) -> int:
    ((_, count),) = client.pubsub_numsub(f"{key_prefix}:changes")
    return int(count)


class TestTask:
    def test_its_state_now_then_each_change_until_the_end(
        self, client: FlaskClient, watch: Watch, idle_worker: FakeWorker
    ) -> None:
        idle_worker.gate.clear()
        task_id = post_async(client)
        events = watch(f"/tasks/{task_id}/events")
        assert events.next().data["status"] == "queued"
        idle_worker.start()
        assert events.next().data["status"] == "running"
        idle_worker.gate.set()
        last = events.next()
        assert (last.name, last.data["status"], last.data["task_id"]) == ("task", "succeeded", task_id)
        assert events.has_ended()

    def test_one_that_has_ended_is_shown_once(self, client: FlaskClient, watch: Watch, idle_worker: FakeWorker) -> None:
        task_id = post_async(client)
        idle_worker.work_off()
        events = watch(f"/tasks/{task_id}/events")
        shown = events.next().data
        assert "prediction" not in shown["result"]
        expected = client.get(f"/tasks/{task_id}").json
        del expected["result"]["prediction"]
        assert shown == expected
        assert events.has_ended()

    def test_the_vector_is_there_if_it_is_asked_for(self, client: FlaskClient, watch: Watch, idle_worker: FakeWorker) -> None:
        task_id = post_async(client)
        idle_worker.work_off()
        assert len(watch(f"/tasks/{task_id}/events?prediction=true").next().data["result"]["prediction"]) == 10
        assert_problem(client.get(f"/tasks/{task_id}/events?prediction=maybe"), 400, "invalid_request", field="prediction")

    def test_a_client_that_has_had_the_end_is_told_to_stop(
        self, client: FlaskClient, watch: Watch, idle_worker: FakeWorker
    ) -> None:
        task_id = post_async(client)
        path = f"/tasks/{task_id}/events"
        before = watch(path).next().id
        idle_worker.work_off()
        again = watch(path, {"Last-Event-ID": before})  # reconnected: the state now
        last = again.next()
        assert last.data["status"] == "succeeded"
        assert client.get(path, headers={"Last-Event-ID": last.id}).status_code == 204

    def test_one_that_is_canceled_ends_the_stream(self, client: FlaskClient, watch: Watch) -> None:
        task_id = post_async(client)
        events = watch(f"/tasks/{task_id}/events")
        assert events.next().data["queue"]["position"] == 0
        client.delete(f"/tasks/{task_id}")
        assert events.next().data["error"]["code"] == "task_canceled"
        assert events.has_ended()

    def test_the_paths_of_a_task_have_the_prefix_of_each_clients_proxy(self, make_app: MakeApp, idle_worker: FakeWorker) -> None:
        client = make_app(api={"trusted_proxies": ["127.0.0.1"]}).test_client()
        task_id = post_async(client)
        idle_worker.work_off()
        for headers, prefix in (({}, ""), ({"X-Forwarded-Prefix": "/ai"}, "/ai"), ({}, "")):
            with client.get(f"/tasks/{task_id}/events", headers=headers) as response:
                assert f'"self":"{prefix}/tasks/{task_id}"' in response.get_data(as_text=True)

    def test_no_such_task(self, client: FlaskClient) -> None:
        assert_problem(client.get("/tasks/nobody/events"), 404, "task_not_found")
        assert_problem(client.get("/tasks/nobody/events?wait=1"), 400, "invalid_request", field="wait")

    def test_head_has_no_stream(self, client: FlaskClient, redis_client: redis.Redis, key_prefix: str) -> None:
        response = client.head(f"/tasks/{post_async(client)}/events")
        assert (response.status_code, response.mimetype, response.data) == (200, "text/event-stream", b"")
        assert response.headers["X-Accel-Buffering"] == "no"
        assert response.headers["Cache-Control"] == "no-store"
        response.close()
        wait_until(lambda: listeners(redis_client, key_prefix) == 0, "nobody listens")

    def test_silence_is_broken_by_comments(self, client: FlaskClient, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("api.events.encoding.HEARTBEAT_S", 0.05)
        events = watch(f"/tasks/{post_async(client)}/events")
        events.next()
        assert [events.text(), events.text()] == [b": keep-alive\n\n"] * 2

    def test_a_record_that_is_gone_ends_the_stream(
        self, client: FlaskClient, watch: Watch, redis_client: redis.Redis, key_prefix: str
    ) -> None:
        task_id = post_async(client)
        events = watch(f"/tasks/{task_id}/events")
        events.next()
        redis_client.delete(f"{key_prefix}:task:{task_id}")  # no script publishes it: found by the check of some tasks
        assert events.has_ended()


class TestReader:
    def test_streams_of_a_task_share_one_reading(self, app: Flask, watch: Watch, idle_worker: FakeWorker) -> None:
        client = app.test_client()
        task_id = post_async(client)
        store = _CountingStore(services_of(app).store)
        _use_store(app, store)
        streams = [watch(f"/tasks/{task_id}/events") for _ in range(5)]
        for stream in streams:
            stream.next()
        store.reads.clear()
        client.delete(f"/tasks/{task_id}")
        texts = {stream.text() for stream in streams}
        assert len(texts) == 1
        assert store.reads.count("get_many") == 1

    def test_a_change_during_a_broken_connection_is_not_lost(
        self, client: FlaskClient, watch: Watch, redis_client: redis.Redis
    ) -> None:
        task_id = post_async(client)
        events = watch(f"/tasks/{task_id}/events")
        events.next()
        pipe = redis_client.pipeline()
        pipe.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        pipe.execute()
        client.delete(f"/tasks/{task_id}")
        assert events.next().data["status"] == "canceled"

    def test_nothing_is_published_while_nobody_listens(
        self, app: Flask, watch: Watch, redis_client: redis.Redis, key_prefix: str
    ) -> None:
        store = services_of(app).store

        def published(step: Callable[[], Any]) -> int:
            before = _calls(redis_client, "publish")
            step()
            return _calls(redis_client, "publish") - before

        def task_from_start_to_end() -> None:
            request = replace(a_request(), reply_to="")
            store.accept(request, enqueue=None, max_queue_depth=0)
            store.lease("w", [request.task_id])
            store.start("w", [request.task_id])
            store.commit("w", [Commit(request.task_id, 1, a_success())])

        assert published(task_from_start_to_end) == 0
        stream = watch("/events")
        stream.next()
        assert published(task_from_start_to_end) == 3
        stream.close()
        wait_until(lambda: listeners(redis_client, key_prefix) == 0, "nobody listens")
        assert published(task_from_start_to_end) == 0

    def test_there_is_a_limit(self, make_app: MakeApp) -> None:
        client = make_app(api={"max_event_streams": 2}).test_client()
        paths = [f"/tasks/{post_async(client)}/events" for _ in range(3)]
        first, second = client.get(paths[0]), client.get(paths[1])
        refused = client.get(paths[2])
        assert_problem(refused, 503, "service_unavailable")
        assert refused.headers["Retry-After"] == "5"
        headers = {"Accept": "application/jsonl"}  # takes a place too, before anything is accepted
        assert_problem(post_batch(client, [1], headers=headers), 503, "service_unavailable")
        first.close()
        third = client.get(paths[2])
        assert third.status_code == 200
        for response in (second, third):
            response.close()

    def test_without_the_task_store_it_is_a_problem(self, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("api.events.hub._SUBSCRIBE_TIMEOUT_S", 0.2)
        app = make_app(task_store={"url": "redis://127.0.0.1:1/0"})
        assert_problem(app.test_client().get("/events"), 503, "service_unavailable")


class TestStopping:
    def test_open_streams_end_and_new_ones_show_the_state_and_end(self, app: Flask, client: FlaskClient, watch: Watch) -> None:
        task_id = post_async(client)
        streams = [watch(f"/tasks/{task_id}/events"), watch("/events")]
        for stream in streams:
            stream.next()
        components_of(app).stopping.set()
        assert all(stream.has_ended() for stream in streams)
        late = watch(f"/tasks/{task_id}/events")
        assert late.next().data["status"] == "queued"
        assert late.has_ended()


class _CountingStore:
    """A store that notes the names of the methods that are called."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.reads: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.reads.append(name)
        return getattr(self._store, name)


def _use_store(app: Flask, store: Any) -> None:
    components = components_of(app)
    services = components.services
    changes = TaskChanges(services.redis, services.settings.task_store.key_prefix)
    hub = EventHub(store, changes, components.stopping, 100)
    install_components(app, replace(components, events=hub))


def _calls(client: redis.Redis, command: str) -> int:
    return int(client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])
