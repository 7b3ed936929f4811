"""An image that travels with its record is stored concurrently with the queue: nobody is answered before both are done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

import pytest
import redis
from api_rig import (
    LISTS,
    RAW_METADATA,
    Background,
    FakeWorker,
    accept_with,
    assert_problem,
    form,
    npy_image,
    post,
    post_async,
    post_batch,
    raw_form,
    raw_image,
    services_of,
    wait_until,
)
from flask import Flask
from flask.testing import FlaskClient
from support.task_pages import ids_of_request

from api.acceptance.uploads import Uploads
from api.components import components_of
from inference.errors import ServiceUnavailable

ASYNC = {"Prefer": "respond-async"}


class GatedObjects:
    """The application's object store as if it were a server, whose puts wait for the test, or fail."""

    is_local = False

    def __init__(self, app: Flask) -> None:
        self._objects = services_of(app).objects
        accept_with(app, uploads=Uploads(self, services_of(app).settings.uploads))
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
def objects(app: Flask, client: FlaskClient) -> GatedObjects:
    """A store that has worked once already."""
    objects = GatedObjects(app)
    client.delete(f"/tasks/{post_async(client)}")
    return objects


def queued(client: redis.Redis) -> int:
    return sum(client.llen(key) for key in LISTS)


def test_the_task_runs_while_the_image_is_still_stored(
    client: FlaskClient, objects: GatedObjects, worker: FakeWorker, app: Flask
) -> None:
    objects.gate.clear()
    request = Background(lambda: post(client, raw_form(3, request_id="mine")))
    (task_id,) = wait_until(lambda: ids_of_request(services_of(app).store, "mine"), "the acceptance")
    wait_until(lambda: client.get(f"/tasks/{task_id}").json["status"] == "succeeded", "the result")
    assert not request.is_done
    objects.gate.set()
    answer = request.response()
    assert (answer.status_code, answer.json["response"]["class"]) == (200, 3)
    assert services_of(app).objects.get(objects.puts[-1]) == raw_image(3)


def test_a_task_is_not_answered_for_before_its_image_is_stored(
    client: FlaskClient, objects: GatedObjects, idle_worker: FakeWorker, app: Flask
) -> None:
    objects.gate.clear()
    request = Background(lambda: post(client, raw_form(3, request_id="mine"), headers=ASYNC))
    wait_until(lambda: ids_of_request(services_of(app).store, "mine"), "the acceptance")
    assert not request.is_done
    objects.gate.set()
    assert request.response().status_code == 202


@pytest.mark.parametrize("send", [post, lambda client, **more: post_batch(client, range(3), **more)], ids=["one", "batch"])
class TestWhatCannotBeStored:
    def test_is_refused_and_leaves_nothing(
        self, client: FlaskClient, objects: GatedObjects, redis_client: redis.Redis, send: Callable[..., Any], app: Flask
    ) -> None:
        objects.is_down = True
        before = len(objects.puts)
        assert_problem(send(client, headers=ASYNC), 503, "service_unavailable")
        task_ids = [key.rpartition("/")[2] for key in objects.puts[before:]]
        assert services_of(app).store.get_many(task_ids) == [None] * len(task_ids)
        assert not list(redis_client.scan_iter(f"{services_of(app).settings.task_store.key_prefix}:image:*"))
        for key in LISTS:
            redis_client.delete(key)
        assert_problem(send(client, headers=ASYNC), 503, "service_unavailable")
        assert queued(redis_client) == 0  # a store that failed is waited for first
        objects.is_down = False
        assert send(client, headers=ASYNC).status_code == HTTPStatus.ACCEPTED

    def test_goes_on_where_its_key_may_have_been_answered_for(
        self, client: FlaskClient, objects: GatedObjects, send: Callable[..., Any]
    ) -> None:
        objects.is_down = True
        headers = ASYNC | {"Idempotency-Key": "k"}
        assert send(client, headers=headers).status_code == HTTPStatus.ACCEPTED
        assert send(client, headers=headers).status_code == HTTPStatus.ACCEPTED

    def test_is_answered_where_there_is_a_result(
        self, client: FlaskClient, objects: GatedObjects, worker: FakeWorker, send: Callable[..., Any]
    ) -> None:
        objects.gate.clear()
        objects.is_down = True
        request = Background(lambda: send(client))
        wait_until(lambda: worker.messages, "the message")
        wait_until(lambda: queued(worker._redis) == 0, "the end")
        time.sleep(0.1)
        objects.gate.set()
        assert request.response().status_code == HTTPStatus.OK


@pytest.mark.parametrize("send", [post, lambda client, **more: post_batch(client, range(3), **more)], ids=["one", "batch"])
@pytest.mark.parametrize("is_down", [False, True])
class TestAStoreThatHangs:
    """Nobody waits for it, and the images are in the task store before anybody is answered."""

    @pytest.fixture(autouse=True)
    def _hasty(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in ("submission", "batch_submission"):
            monkeypatch.setattr(f"api.acceptance.{module}.GRACE_S", 0.1)

    def test_a_task_is_answered_for(
        self, client: FlaskClient, objects: GatedObjects, app: Flask, send: Callable[..., Any], is_down: bool
    ) -> None:
        objects.gate.clear()
        answer = send(client, headers=ASYNC)
        self.check(client, objects, app, answer, is_down)
        assert answer.status_code == HTTPStatus.ACCEPTED

    @pytest.mark.usefixtures("worker")
    def test_a_result_is_answered(
        self, client: FlaskClient, objects: GatedObjects, app: Flask, send: Callable[..., Any], is_down: bool
    ) -> None:
        objects.gate.clear()
        answer = send(client)
        self.check(client, objects, app, answer, is_down)
        assert answer.status_code == HTTPStatus.OK

    def check(self, client: FlaskClient, objects: GatedObjects, app: Flask, answer: Any, is_down: bool) -> None:
        """Ends of the images, before the store has answered and after."""
        task_ids = [item["task_id"] for item in answer.json.get("items", [answer.json])]
        store = services_of(app).store
        assert sorted(store.list_kept_images(10)) == sorted(task_ids)
        assert store.get_kept_image(task_ids[0]) == raw_image(0 if len(task_ids) > 1 else 7)
        assert client.get(f"/tasks/{task_ids[0]}").json["image_stored"] is False
        objects.is_down = is_down
        objects.gate.set()
        if is_down:
            wait_until(lambda: not components_of(app).submissions.parts.uploads._in_background, "the end of the puts")
            assert store.count_kept_images() == len(task_ids)
        else:
            wait_until(lambda: not store.count_kept_images(), "the end of the puts")
            assert "image_stored" not in client.get(f"/tasks/{task_ids[0]}").json


def test_when_many_puts_hang_the_next_images_are_stored_first(
    client: FlaskClient, objects: GatedObjects, monkeypatch: pytest.MonkeyPatch, redis_client: redis.Redis
) -> None:
    monkeypatch.setattr("api.acceptance.uploads._MAX_BACKGROUND_PUTS", 2)
    monkeypatch.setattr("api.acceptance.submission.GRACE_S", 10)
    objects.gate.clear()
    requests = []
    for number in range(4):
        requests.append(Background(lambda: post(client, headers=ASYNC)))
        wait_until(lambda number=number: len(objects.puts) == number + 2, "its put, in addition to the fixture's")  # type: ignore[misc]
    wait_until(lambda: queued(redis_client) == 3, "two messages in addition to the fixture's")
    assert not any(request.is_done for request in requests)
    objects.gate.set()
    assert {request.response().status_code for request in requests} == {HTTPStatus.ACCEPTED}


@pytest.mark.parametrize("is_local", [False, True])
@pytest.mark.parametrize("small", [[False], [True], [True, True], [True, False], [False, False]])
def test_an_object_is_a_copy_only_where_the_record_has_the_bytes(
    make_app: Any, is_local: bool, small: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else would outlive a power failure."""
    images = [raw_image() if is_small else npy_image() for is_small in small]
    metadata = [RAW_METADATA if is_small else {} for is_small in small]
    app = make_app(uploads={"inline_max_bytes": len(raw_image())})
    client = app.test_client()
    client.delete(f"/tasks/{post_async(client)}")  # now the store is known to work
    objects = services_of(app).objects
    monkeypatch.setattr(type(objects), "is_local", is_local)
    copies: dict[str, bool] = {}
    put = objects.put

    def put_and_note(key: str, data: bytes, *, is_durable: bool = True, **options: Any) -> None:
        copies[key.rpartition("/")[2]] = not is_durable
        put(key, data, is_durable=is_durable, **options)

    monkeypatch.setattr(objects, "put", put_and_note)
    if len(images) == 1:
        post(client, form(images[0], metadata=metadata[0]), headers=ASYNC)
    else:
        post_batch(client, images, metadata=metadata, headers=ASYNC)
    leases = services_of(app).store.lease("w", list(copies)).leases
    assert list(copies.values()) == [bool(lease.image) for lease in leases] == [all(small)] * len(small)


class TestInAFolder:
    """No server is waited for: the image is there before its task is accepted."""

    def test_it_is_stored_first(self, client: FlaskClient, app: Flask) -> None:
        objects, accept = services_of(app).objects, services_of(app).store.accept
        stored: list[bytes] = []

        def accept_then(request: Any, **options: Any) -> Any:
            stored.append(objects.get(request.item.object_key))
            return accept(request, **options)

        services_of(app).store.accept = accept_then  # type: ignore[method-assign]
        task_id = post_async(client, raw_form(4))
        assert stored == [raw_image(4)]
        assert [lease.image for lease in services_of(app).store.lease("w", [task_id]).leases] == [raw_image(4)]

    @pytest.mark.parametrize("send", [post, lambda client, **more: post_batch(client, range(3), **more)], ids=["one", "batch"])
    def test_what_cannot_be_stored_is_not_accepted(
        self, client: FlaskClient, redis_client: redis.Redis, send: Callable[..., Any], app: Flask
    ) -> None:
        services_of(app).settings.uploads_path.write_text("no folder")
        assert_problem(send(client, headers=ASYNC | {"Idempotency-Key": "k"}), 503, "service_unavailable")
        assert queued(redis_client) == 0
        services_of(app).settings.uploads_path.unlink()
        assert send(client, headers=ASYNC | {"Idempotency-Key": "k"}).status_code == HTTPStatus.ACCEPTED


def test_its_bytes_come_with_the_lease_until_it_has_ended(client: FlaskClient, objects: GatedObjects, app: Flask) -> None:
    store = services_of(app).store
    task_id = post_async(client, raw_form(4))
    assert [lease.image for lease in store.lease("w", [task_id]).leases] == [raw_image(4)]
    store.release("w", [task_id])
    assert [lease.image for lease in store.lease("another", [task_id]).leases] == [raw_image(4)]
    client.delete(f"/tasks/{task_id}")
    assert not list(services_of(app).redis.scan_iter(f"*image:{task_id}"))


@pytest.mark.parametrize(("limit", "is_inline"), [(0, False), (255, False), (256, True)])
def test_only_up_to_the_size_that_the_settings_say(make_app: Any, limit: int, is_inline: bool) -> None:
    app = make_app(uploads={"inline_max_bytes": limit})
    client = app.test_client()
    post_async(client)  # now the store is known to work
    task_id = post_async(client, raw_form(5))
    (lease,) = services_of(app).store.lease("w", [task_id]).leases
    assert (lease.image == raw_image(5)) is is_inline
    assert len(raw_image(5)) == 256


def test_the_images_of_one_request_are_inline_up_to_a_size_together(make_app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call of Redis does not keep others waiting for long."""
    monkeypatch.setattr("api.acceptance.uploads._MAX_REQUEST_BYTES", 2 * len(raw_image()))
    app = make_app()
    for count, are_inline in ((2, True), (3, False), (2, True)):
        items = post_batch(app.test_client(), range(count), headers=ASYNC).json["items"]
        leases = services_of(app).store.lease("w", [item["task_id"] for item in items]).leases
        assert [bool(lease.image) for lease in leases] == [are_inline] * count


class TestTheMemoryOfTheTaskStore:
    """Three images fit; then the next are stored before their tasks are accepted, as large ones are."""

    @pytest.fixture
    def app(self, make_app: Any, monkeypatch: pytest.MonkeyPatch) -> Flask:
        monkeypatch.setattr("api.acceptance.uploads._MB", len(raw_image()))
        app: Flask = make_app(uploads={"inline_memory_mb": 3})
        return app

    def are_inline(self, app: Flask, task_ids: Iterable[str]) -> list[bool]:
        task_ids = list(task_ids)
        leases = services_of(app).store.lease("w", task_ids).leases
        keys = [record.item.object_key for record in services_of(app).store.get_many(task_ids) if record]
        assert [len(services_of(app).objects.get(key)) for key in keys] == [len(raw_image())] * len(task_ids)
        return [bool(lease.image) for lease in leases]

    def test_no_more_than_fit_are_inline_at_a_time(self, app: Flask, client: FlaskClient) -> None:
        task_ids = [post_async(client, raw_form(number)) for number in range(5)]
        assert self.are_inline(app, task_ids) == [True, True, True, False, False]
        for task_id in task_ids[:2]:
            client.delete(f"/tasks/{task_id}")
        post_async(client)  # the task store tells what it holds with each acceptance
        assert self.are_inline(app, [post_async(client) for _ in range(3)]) == [True, True, False]

    def test_those_of_another_process_count(self, app: Flask, client: FlaskClient, make_app: Any) -> None:
        other = make_app().test_client()
        for _ in range(3):
            post_async(other)
        assert self.are_inline(app, [post_async(client) for _ in range(2)]) == [True, False]

    def test_the_images_of_a_batch_are_inline_together_or_not_at_all(self, app: Flask, client: FlaskClient) -> None:
        for count, is_inline in ((4, False), (3, True), (1, False)):
            items = post_batch(client, range(count), headers=ASYNC).json["items"]
            assert self.are_inline(app, [item["task_id"] for item in items]) == [is_inline] * count

    def test_what_was_refused_does_not_count(self, app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
        """The next acceptance tells the count."""
        with monkeypatch.context() as patch:
            patch.setattr(services_of(app).store, "accept", _refuse)
            for _ in range(3):
                assert_problem(post(client, headers=ASYNC), 503, "service_unavailable")
        assert self.are_inline(app, [post_async(client) for _ in range(2)]) == [False, True]


def _refuse(*_: Any, **__: Any) -> Any:
    error = ServiceUnavailable("refused by the test", retry_after_s=5)
    error.is_refusal = True
    raise error
