"""The image of a refused request is deleted where the refusal is certain, and stays where its task may have been accepted."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import pytest
from api_rig import RAW_METADATA, FakeWorker, accept_with, form, post, post_batch, raw_form, services_of, wait_until
from flask import Flask
from flask.testing import FlaskClient
from support.fakes import FakeBroker

from api.acceptance.uploads import Uploads
from api.components import components_of
from inference.errors import IdempotencyConflict, Overloaded, ServiceUnavailable
from inference.task_store import TaskStore

ASYNC = {"Prefer": "respond-async"}
SEND: dict[str, Callable[..., Any]] = {
    "one": post,
    "batch": lambda client, **more: post_batch(client, range(3), **more),
}


class ServerObjects:
    """The application's object store as if it were a server."""

    is_local = False

    def __init__(self, app: Flask) -> None:
        self._objects = services_of(app).objects
        self.puts: list[str] = []
        accept_with(app, uploads=Uploads(self, services_of(app).settings.uploads))

    def put(self, key: str, data: bytes, **options: Any) -> None:
        self._objects.put(key, data, **options)
        self.puts.append(key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)


class FailingStore:
    """A task store that fails when it is to accept.

    Args:
        is_after: it has accepted it then.
        times: how often; then it works.
    """

    def __init__(self, store: TaskStore, error: Exception, *, is_after: bool = False, times: int = 1000) -> None:
        self._store = store
        self._error = error
        self._is_after = is_after
        self._times = times

    def accept(self, *args: Any, **options: Any) -> Any:
        return self._fail(self._store.accept, *args, **options)

    def accept_batch(self, *args: Any, **options: Any) -> Any:
        return self._fail(self._store.accept_batch, *args, **options)

    def _fail(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        self._times -= 1
        if self._times < 0:
            return call(*args, **options)
        if self._is_after:
            call(*args, **options)
        raise self._error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.fixture(params=["local", "server", "server, stored first"])
def objects(app: Flask, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("inference.lifecycle.enqueue._PATIENCE_S", 0.5)
    if request.param == "local":
        return services_of(app).objects
    objects = ServerObjects(app)
    components_of(app).submissions.parts.uploads._store_works = request.param == "server"
    return objects


def left(app: Flask) -> list[Any]:
    return [path for path in services_of(app).settings.uploads_path.rglob("*") if path.is_file()]


FULL = ServiceUnavailable("no memory")
FULL.is_refusal = True
REFUSALS = {
    "full": (FULL, 503),
    "overloaded": (Overloaded("too many"), 429),
    "conflict": (IdempotencyConflict("another content"), 409),
}


@pytest.mark.parametrize("send", SEND.values(), ids=SEND)
@pytest.mark.parametrize(("error", "status"), REFUSALS.values(), ids=REFUSALS)
@pytest.mark.usefixtures("objects")
def test_what_is_refused_leaves_no_image(
    app: Flask, client: FlaskClient, send: Callable[..., Any], error: Exception, status: int
) -> None:
    accept_with(app, store=FailingStore(services_of(app).store, error))
    answer = send(client, headers=ASYNC)
    assert answer.status_code == status
    assert not {"task_id", "batch_id"} & answer.json.keys()
    wait_until(lambda: not left(app), "the images are deleted")


@pytest.mark.parametrize("send", SEND.values(), ids=SEND)
@pytest.mark.usefixtures("objects")
def test_what_cannot_be_published_leaves_no_image(app: Flask, client: FlaskClient, send: Callable[..., Any]) -> None:
    broker = FakeBroker()
    broker.available = False
    accept_with(app, broker=broker)
    answer = send(client, headers=ASYNC)
    assert (answer.status_code, {"task_id", "batch_id"} & answer.json.keys()) == (503, set())
    wait_until(lambda: not left(app), "the images are deleted")


@pytest.mark.parametrize("is_after", [False, True], ids=["not accepted", "accepted"])
@pytest.mark.parametrize("send", SEND.values(), ids=SEND)
@pytest.mark.usefixtures("objects")
class TestAnAnswerThatGetsLost:
    def test_is_asked_for_again(self, app: Flask, client: FlaskClient, send: Callable[..., Any], is_after: bool) -> None:
        lost = ServiceUnavailable("the connection was cut")
        accept_with(app, store=FailingStore(services_of(app).store, lost, is_after=is_after, times=2))
        answer = send(client, headers=ASYNC)
        assert answer.status_code == HTTPStatus.ACCEPTED
        items = answer.json.get("items") or [answer.json]
        assert [item["status"] for item in items] == ["queued"] * len(items)
        assert services_of(app).store.get_queue_stats("predict.digits").depth == len(items)

    def test_names_what_may_have_been_accepted(
        self, app: Flask, client: FlaskClient, send: Callable[..., Any], is_after: bool
    ) -> None:
        lost = ServiceUnavailable("the connection was cut", retry_after_s=1)
        accept_with(app, store=FailingStore(services_of(app).store, lost, is_after=is_after))
        answer = send(client, headers=ASYNC)
        assert (answer.status_code, answer.json["code"]) == (503, "service_unavailable")
        assert "Retry-After" in answer.headers
        found = client.get(answer.headers["Location"])
        assert found.status_code == (200 if is_after else 404)
        assert left(app), "its task may be there, and need it"


@pytest.mark.parametrize("send", SEND.values(), ids=SEND)
def test_what_was_accepted_is_answered_though_the_store_breaks_off_then(
    app: Flask, client: FlaskClient, worker: FakeWorker, send: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: Any, **__: Any) -> None:
        raise ServiceUnavailable("taken down by the test")

    with monkeypatch.context() as broken:
        broken.setattr(services_of(app).store, "get_many", down)
        broken.setattr(services_of(app).store, "get_batch", down)
        answer = send(client, headers=ASYNC)
    assert answer.status_code == HTTPStatus.ACCEPTED
    assert answer.json.keys() == client.get(answer.headers["Location"]).json.keys()


def test_a_withdrawal_whose_answer_gets_lost_names_the_task(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: Any, **__: Any) -> None:
        raise ServiceUnavailable("taken down by the test")

    monkeypatch.setattr("inference.lifecycle.enqueue._PATIENCE_S", 0.1)
    broker = FakeBroker()
    broker.available = False
    accept_with(app, broker=broker)
    with monkeypatch.context() as broken:
        broken.setattr(services_of(app).store, "withdraw", down)
        answer = post(client, headers=ASYNC)
    assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    assert client.get(answer.headers["Location"]).json["status"] == "queued"


def test_a_request_that_took_too_long_is_not_accepted(make_app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The upload may count as one of no task by then."""
    app = make_app(uploads={"orphan_after_s": 200})
    ids = components_of(app).submissions.parts.ids
    clock, times = ids._clock, iter([0, 101])
    ids._clock = lambda: clock() + next(times)
    answer = post(app.test_client(), raw_form(), headers=ASYNC)
    assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    assert not left(app)


def test_the_oldest_id_of_a_batch_counts(app: Flask, client: FlaskClient) -> None:
    """Items with references get theirs at the same time, in any order."""
    ids = components_of(app).batch_submissions.parts.ids
    clock, times = ids._clock, iter([0, -451])
    ids._clock = lambda: clock() + next(times, 0)
    answer = post_batch(client, range(3), mode="async")
    assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE, answer.json
    assert not left(app)


def test_ids_tell_time_and_store(app: Flask, client: FlaskClient) -> None:
    first, second = (post(client, form(b"\0" * 256, metadata=RAW_METADATA), headers=ASYNC).json["task_id"] for _ in range(2))
    assert first[:12] <= second[:12]
    assert first[-6:] == second[-6:] == services_of(app).store.get_tag()
