"""A batch is accepted as a whole or not at all, and once for each `Idempotency-Key`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
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
    post,
    post_async,
    post_batch,
    raw_form,
    services_of,
    wait_until,
)
from flask import Flask
from flask.testing import FlaskClient
from support.fakes import FakeBroker

from api.acceptance.admission import Admission
from api.acceptance.uploads import Uploads
from api.components import components_of
from inference.domain import QueueMessage
from inference.errors import ServiceUnavailable
from inference.models.registry import reference
from inference.task_store import QueueLoad

KEY = {"Idempotency-Key": "one"}
ASYNC = {"Prefer": "respond-async"}


class Faulty:
    """A store or broker of which some methods are the test's."""

    def __init__(self, real: Any, **methods: Any) -> None:
        self._real = real
        self.__dict__.update(methods)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class Remains:
    """Objects that were added."""

    def __init__(self, folder: Path, client: redis.Redis, key_prefix: str) -> None:
        self._folder = folder
        self._redis = client
        self._prefix = key_prefix
        self._before = self._all()

    def _all(self) -> set[Any]:
        files = {path for path in self._folder.rglob("*") if path.is_file()}
        messages = {(key, message) for key in LISTS for message in self._redis.lrange(key, 0, -1)}
        # A counter, the bounded list of task ids, and keys that stand for what is gone, say nothing to anyone.
        silent = (f"{self._prefix}:seq", f"{self._prefix}:idempotency:")
        keys = {key for key in self._redis.scan_iter(match=f"{self._prefix}:*") if not key.decode().startswith(silent)}
        # Refused tasks are counted in the background, with the next reading of the queue, and forgotten by themselves.
        keys -= {key for key in keys if key.startswith(f"{self._prefix}:refused:".encode()) and self._redis.pttl(key) > 0}
        keys.discard(f"{self._prefix}:tasks".encode())
        return files | messages | keys

    def are_none(self) -> bool:
        return self._all() == self._before


@pytest.fixture
def remains(tmp_path: Path, redis_client: redis.Redis, key_prefix: str) -> Callable[[], Remains]:
    return lambda: Remains(tmp_path, redis_client, key_prefix)


class TestOverload:
    def test_a_batch_for_which_there_is_no_room_leaves_nothing(
        self, make_app: Any, remains: Callable[[], Remains], tmp_path: Path
    ) -> None:
        app = make_app(limits={"max_queue_depth": 5})
        client = app.test_client()
        post_batch(client, range(3), headers=ASYNC)
        wait_until(lambda: len([path for path in (tmp_path / "uploads").rglob("*") if path.is_file()]) == 3, "the stored images")
        before = remains()
        for headers in ({}, ASYNC, KEY):
            response = post_batch(client, range(3), headers=headers)
            assert_problem(response, 429, "overloaded")
            assert 1 <= int(response.headers["Retry-After"]) <= 60
        assert before.are_none()
        assert components_of(app).replies._waiters == {}
        assert post_batch(client, range(2), headers=ASYNC).status_code == 202

    def test_full_for_a_batch_is_full_for_one(self, make_app: Any) -> None:
        client = make_app(limits={"max_queue_depth": 3}).test_client()
        post_batch(client, range(3), headers=ASYNC)
        assert_problem(post(client, headers=ASYNC), 429, "overloaded")

    def test_refused_items_take_no_room(self, make_app: Any) -> None:
        client = make_app(limits={"max_queue_depth": 3}).test_client()
        post_async(client)
        assert post_batch(client, [1, b"", 2], headers=ASYNC).status_code == 202

    def test_who_would_miss_its_deadline_is_refused_as_a_whole(self, app: Flask, client: FlaskClient, tmp_path: Path) -> None:
        """4 run and 10 a second end: 21 more have ended after 2.5 s, and not before."""
        model = reference(services_of(app).models.get("digits"))
        load = QueueLoad(0, 4, ended=100, busy_s=10, batches=10, model=model)
        slow = Faulty(services_of(app).store, get_queue_load=lambda *_, **_options: load)
        settings = services_of(app).settings
        outbox_stats, worker = services_of(app).outbox_stats, settings.worker
        accept_with(app, admission=Admission(slow, outbox_stats, settings.outbox, workers=list, worker_settings=worker))
        assert post_batch(client, range(21), headers=ASYNC, deadline_s="5").status_code == 202
        before = len(list(tmp_path.rglob("*")))
        assert_problem(post_batch(client, range(22), headers=ASYNC, deadline_s="5"), 429, "overloaded")
        metadata = [RAW_METADATA] * 21 + [RAW_METADATA | {"deadline_s": 5}]
        assert_problem(post_batch(client, range(22), headers=ASYNC, metadata=metadata), 429, "overloaded")
        assert len(list(tmp_path.rglob("*"))) == before


class TestAServerThatIsDown:
    def test_an_upload_that_fails_takes_the_others_with_it(self, app: Flask, client: FlaskClient, remains: Any) -> None:
        before = remains()
        put, calls, lock = services_of(app).objects.put, [], threading.Lock()

        def fail_once(*args: Any, **options: Any) -> None:
            with lock:
                calls.append(args)
            if len(calls) == 5:
                raise ServiceUnavailable("taken down by the test")
            put(*args, **options)

        objects = Faulty(services_of(app).objects, put=fail_once)
        accept_with(app, uploads=Uploads(objects, services_of(app).settings.uploads))
        assert_problem(post_batch(client, range(8)), 503, "service_unavailable")
        assert len(calls) == 5  # in a folder one after the other: none is stored after it
        assert before.are_none()

    def test_a_record_store_that_is_down(self, app: Flask, client: FlaskClient) -> None:
        def down(*_: Any, **__: Any) -> None:
            raise ServiceUnavailable("taken down by the test")

        accept_with(app, store=Faulty(services_of(app).store, accept_batch=down))
        assert_problem(post_batch(client, range(3)), 503, "service_unavailable")
        assert components_of(app).replies._waiters == {}

    def test_a_broker_that_takes_some_messages_and_no_more(self, make_app: Any, remains: Any) -> None:
        """RabbitMQ: the records come first, then the messages."""
        app = make_app(worker={"max_batch_size": 2})
        before = remains()
        broker = Reluctant(takes=2)
        accept_with(app, broker=broker)
        assert_problem(post_batch(app.test_client(), range(8), headers=ASYNC | KEY), 503, "service_unavailable")
        assert before.are_none()
        assert components_of(app).replies._waiters == {}
        broker.takes = 10
        response = post_batch(app.test_client(), range(8), headers=ASYNC | KEY)
        assert (response.status_code, "Idempotent-Replayed" in response.headers) == (202, False)

    def test_what_a_worker_has_begun_stays_accepted(self, make_app: Any) -> None:
        """And the sweeper queues the rest, whose messages are lost."""
        app = make_app(worker={"max_batch_size": 2})
        store = services_of(app).store

        def work(message: QueueMessage) -> None:
            task_ids = [item.task_id for item in message.items]
            store.lease("w", task_ids)
            store.start("w", task_ids)

        accept_with(app, broker=Reluctant(takes=1, on_publish=work))
        response = post_batch(app.test_client(), range(4), headers=ASYNC)
        assert response.status_code == 202
        assert [item["status"] for item in response.json["items"]] == ["running"] * 2 + ["queued"] * 2
        lost = [item["task_id"] for item in response.json["items"][2:]]
        assert store.find_lost("predict.digits", up_to=None, grace_s=0, limit=10) == lost


class Reluctant(FakeBroker):
    """Takes so many messages and no more."""

    def __init__(self, *, takes: int, on_publish: Callable[[QueueMessage], None] = lambda _: None) -> None:
        super().__init__()
        self.takes = takes
        self._on_publish = on_publish

    def publish(self, queue: str, message: QueueMessage, priority: int = 0, **options: Any) -> None:
        self.takes -= 1
        self.available = self.takes >= 0
        super().publish(queue, message, priority, **options)
        self._on_publish(message)


class TestIdempotency:
    def test_the_same_again_is_the_same_batch_and_its_tasks(
        self, client: FlaskClient, worker: FakeWorker, tmp_path: Path
    ) -> None:
        first, again = (post_batch(client, [1, b"", 2], headers=KEY) for _ in range(2))
        assert (first.status_code, again.status_code) == (200, 200)
        assert first.json == again.json
        assert "Idempotent-Replayed" not in first.headers
        assert again.headers["Idempotent-Replayed"] == "true"
        assert len(worker.messages) == 1
        assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 2

    def test_what_was_sent_to_be_asked_for_may_be_sent_again_to_wait(
        self, client: FlaskClient, app: Flask, worker: FakeWorker
    ) -> None:
        worker.gate.clear()
        first = post_batch(client, [1, 2], headers=KEY | ASYNC)
        again = post_batch(client, [1, 2], headers=KEY | ASYNC)
        assert (again.status_code, again.headers["Location"]) == (202, first.headers["Location"])
        waiting = Background(lambda: post_batch(app.test_client(), [1, 2], headers=KEY))
        worker.gate.set()
        response = waiting.response()
        assert (response.status_code, response.json["batch_id"]) == (200, first.json["batch_id"])
        assert [item["result"]["class"] for item in response.json["items"]] == [1, 2]

    @pytest.mark.parametrize(
        "other",
        [
            pytest.param(([2, 1], {}), id="another order"),
            pytest.param(([1, 3], {}), id="another image"),
            pytest.param(([1, 2, 2], {}), id="another number"),
            pytest.param(([1, 2], {"request_id": "r"}), id="other metadata"),
            pytest.param(([1, 2], {"metadata": [RAW_METADATA, RAW_METADATA | {"priority": 3}]}), id="metadata of one"),
        ],
    )
    def test_other_content_is_a_conflict(self, client: FlaskClient, worker: FakeWorker, other: Any) -> None:
        batch_id = post_batch(client, [1, 2], headers=KEY).json["batch_id"]
        images, fields = other
        response = post_batch(client, images, headers=KEY, **fields)
        assert_problem(response, 409, "idempotency_conflict", field="Idempotency-Key", batch_id=batch_id)
        assert response.headers["Location"] == f"/batches/{batch_id}"

    def test_metadata_for_all_is_the_same_as_for_each(self, client: FlaskClient, worker: FakeWorker) -> None:
        first = post_batch(client, [1, 2], headers=KEY)
        again = post_batch(client, [1, 2], headers=KEY, metadata=[RAW_METADATA, RAW_METADATA])
        assert again.json == first.json

    def test_a_batch_is_no_task_and_a_task_no_batch(self, client: FlaskClient, worker: FakeWorker) -> None:
        batch_id = post_batch(client, [7], headers=KEY).json["batch_id"]
        assert_problem(post(client, raw_form(7), headers=KEY), 409, "idempotency_conflict", batch_id=batch_id)
        headers = {"Idempotency-Key": "two"}
        task_id = post(client, raw_form(7), headers=headers).json["task_id"]
        assert_problem(post_batch(client, [7], headers=headers), 409, "idempotency_conflict", task_id=task_id)

    def test_at_the_same_time_it_is_one_batch(
        self, app: Flask, worker: FakeWorker, tmp_path: Path, redis_client: redis.Redis
    ) -> None:
        line = threading.Barrier(6)

        def send() -> Any:
            line.wait(10)
            return post_batch(app.test_client(), [5, 6], headers=KEY)

        responses = [one.response() for one in [Background(send) for _ in range(6)]]
        assert {response.status_code for response in responses} == {200}
        assert len({response.json["batch_id"] for response in responses}) == 1
        assert [response.headers.get("Idempotent-Replayed") for response in responses].count(None) == 1
        assert len(worker.messages) == 1
        assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 2
        assert components_of(app).replies._waiters == {}

    def test_a_batch_of_nothing_but_refused_items_is_the_same_too(self, client: FlaskClient) -> None:
        first, again = (post_batch(client, [b"", b""], headers=KEY) for _ in range(2))
        assert first.json == again.json
        assert again.headers["Idempotent-Replayed"] == "true"


def test_two_kinds_of_submissions_share_one_admission(app: Flask) -> None:
    components = components_of(app)
    assert components.batch_submissions.parts.admission is components.submissions.parts.admission
