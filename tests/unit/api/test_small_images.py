"""An image that travels with its record is stored beside the queue: nobody is answered before both are done."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import pytest
import redis
from api_rig import (
    LISTS,
    Background,
    FakeWorker,
    assert_problem,
    post,
    post_async,
    post_batch,
    raw_form,
    raw_image,
    wait_until,
)
from flask.testing import FlaskClient

from api.app import Api
from inference.errors import ServiceUnavailable

ASYNC = {"Prefer": "respond-async"}


class GatedObjects:
    """The application's object store, whose puts wait for the test, or fail."""

    def __init__(self, app: Api) -> None:
        self._objects = app.services.objects
        app.submissions._uploads._objects = self  # type: ignore[assignment]
        self.gate = threading.Event()
        self.gate.set()
        self.is_down = False
        self.puts: list[str] = []

    def put(self, key: str, data: bytes, **options: Any) -> None:
        self.puts.append(key)
        assert self.gate.wait(10)
        if self.is_down:
            raise ServiceUnavailable("taken down by the test", retry_after_s=5)
        self._objects.put(key, data, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)


@pytest.fixture
def objects(app: Api, client: FlaskClient) -> GatedObjects:
    """A store that has worked once already."""
    objects = GatedObjects(app)
    client.delete(f"/tasks/{post_async(client)}")
    return objects


def queued(client: redis.Redis) -> int:
    return sum(client.llen(key) for key in LISTS)


def test_the_task_runs_while_the_image_is_still_stored(
    client: FlaskClient, objects: GatedObjects, worker: FakeWorker, app: Api
) -> None:
    objects.gate.clear()
    request = Background(lambda: post(client, raw_form(3, request_id="mine")))
    (task_id,) = wait_until(lambda: app.services.store.find_by_request("mine"), "the acceptance")
    wait_until(lambda: client.get(f"/tasks/{task_id}").json["status"] == "succeeded", "the result")
    assert not request.is_done
    objects.gate.set()
    answer = request.response()
    assert (answer.status_code, answer.json["response"]["class"]) == (200, 3)
    assert app.services.objects.get(objects.puts[-1]) == raw_image(3)


def test_a_task_is_not_answered_for_before_its_image_is_stored(
    client: FlaskClient, objects: GatedObjects, idle_worker: FakeWorker, app: Api
) -> None:
    objects.gate.clear()
    request = Background(lambda: post(client, raw_form(3, request_id="mine"), headers=ASYNC))
    wait_until(lambda: app.services.store.find_by_request("mine"), "the acceptance")
    assert not request.is_done
    objects.gate.set()
    assert request.response().status_code == 202


@pytest.mark.parametrize("send", [post, lambda client: post_batch(client, range(3), headers=ASYNC)], ids=["one", "batch"])
def test_what_cannot_be_stored_is_canceled(
    client: FlaskClient, objects: GatedObjects, redis_client: redis.Redis, send: Callable[[FlaskClient], Any], app: Api
) -> None:
    objects.is_down = True
    before = len(objects.puts)
    assert_problem(send(client), 503, "service_unavailable")
    task_ids = [key.rpartition("/")[2] for key in objects.puts[before:]]
    # Of a batch some may not have been accepted: from the first failure on, the store is waited for.
    assert {client.get(f"/tasks/{task_id}").json["status"] for task_id in task_ids} <= {"canceled", HTTPStatus.NOT_FOUND}
    for key in LISTS:
        redis_client.delete(key)
    assert_problem(send(client), 503, "service_unavailable")
    assert queued(redis_client) == 0  # a store that failed is waited for first
    objects.is_down = False
    send_async = client.post("/inference", data=raw_form(), headers=ASYNC)
    assert send_async.status_code == 202


def test_its_bytes_come_with_the_lease_until_it_has_ended(client: FlaskClient, objects: GatedObjects, app: Api) -> None:
    store = app.services.store
    task_id = post_async(client, raw_form(4))
    assert [lease.image for lease in store.lease("w", [task_id]).leases] == [raw_image(4)]
    store.release("w", [task_id])
    assert [lease.image for lease in store.lease("another", [task_id]).leases] == [raw_image(4)]
    client.delete(f"/tasks/{task_id}")
    assert not list(app.services.redis.scan_iter(f"*image:{task_id}"))


@pytest.mark.parametrize(("limit", "is_inline"), [(0, False), (255, False), (256, True)])
def test_only_up_to_the_size_that_the_settings_say(make_app: Any, limit: int, is_inline: bool) -> None:
    app = make_app(uploads={"inline_max_bytes": limit})
    client = app.test_client()
    post_async(client)  # now the store is known to work
    task_id = post_async(client, raw_form(5))
    (lease,) = app.services.store.lease("w", [task_id]).leases
    assert (lease.image == raw_image(5)) is is_inline
    assert len(raw_image(5)) == 256
