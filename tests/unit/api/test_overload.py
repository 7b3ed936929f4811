"""Overload is refused before acceptance: a queue that is full, or so slow that a deadline would be missed."""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from api_rig import FakeWorker, accept_with, assert_problem, post, post_async, raw_form, services_of
from flask import Flask
from flask.testing import FlaskClient
from support.waiting import until

from api.acceptance.admission import Admission
from api.components import components_of
from inference.domain import ModelRef
from inference.errors import ServiceUnavailable
from inference.models.registry import reference
from inference.settings import OutboxSettings
from inference.task_store import QueueLoad
from inference.task_store.outbox import OutboxStats


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


DIGITS = ModelRef("digits", "1", "sha256:00")


def a_load(*, waiting: int, per_s: float) -> QueueLoad:
    return QueueLoad(waiting, 0, ended=10 * per_s, busy_s=10, batches=10)


class SlowQueue:
    """The record store, but for how its queue does."""

    def __init__(self, store: Any, load: QueueLoad, model: ModelRef) -> None:
        self._store = store
        self._model = model
        self.load = load
        self.looks = 0

    def get_queue_load(self, *_: str, refused: int) -> QueueLoad:
        self.looks += 1
        return dataclasses.replace(self.load, model=self._model)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class StalledStore(SlowQueue):
    """Accepts nothing until `go_on` is set."""

    def __init__(self, store: Any, load: QueueLoad, model: ModelRef) -> None:
        super().__init__(store, load, model)
        self.go_on = threading.Event()
        self.asked = 0

    def accept(self, *arguments: Any, **options: Any) -> Any:
        self.asked += 1
        assert self.go_on.wait(60)
        return self._store.accept(*arguments, **options)


@pytest.fixture
def full(make_app: Any) -> FlaskClient:
    """A queue that takes two tasks, and has them."""
    client: FlaskClient = make_app(limits={"max_queue_depth": 2}).test_client()
    for _ in range(2):
        post_async(client)
    return client


def test_a_full_queue_refuses_more(full: FlaskClient, tmp_path: Path) -> None:
    for headers in ({}, {"Prefer": "respond-async"}):
        response = post(full, headers=headers)
        assert_problem(response, 429, "overloaded")
        assert 1 <= int(response.headers["Retry-After"]) <= 60
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 2


def test_a_full_queue_still_answers_what_was_accepted(make_app: Any) -> None:
    client = make_app(limits={"max_queue_depth": 1}).test_client()
    headers = {"Idempotency-Key": "k", "Prefer": "respond-async"}
    task_id = post(client, headers=headers).json["task_id"]
    assert_problem(post(client, headers={"Prefer": "respond-async"}), 429, "overloaded")
    assert post(client, headers=headers).json["task_id"] == task_id


def test_a_queue_with_room_again_takes_more(make_app: Any) -> None:
    client = make_app(limits={"max_queue_depth": 1}).test_client()
    task_id = post_async(client)
    assert_problem(post(client, headers={"Prefer": "respond-async"}), 429, "overloaded")
    client.delete(f"/tasks/{task_id}")
    assert post(client, headers={"Prefer": "respond-async"}).status_code == 202


class TestARateThatIsTooSlow:
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def slow(self, app: Flask, clock: Clock) -> SlowQueue:
        """200 tasks, 2 a second: 100 s."""
        model = reference(services_of(app).models.get("digits"))
        slow = SlowQueue(services_of(app).store, a_load(waiting=200, per_s=2), model)
        settings = services_of(app).settings
        outbox_stats, worker = services_of(app).outbox_stats, settings.worker
        admission = Admission(slow, outbox_stats, settings.outbox, workers=list, worker_settings=worker, clock=clock)
        accept_with(app, store=slow, admission=admission)
        return slow

    @pytest.mark.usefixtures("slow")
    def test_who_would_miss_its_deadline_is_refused(self, client: FlaskClient) -> None:
        response = post(client)
        problem = assert_problem(response, 429, "overloaded")
        assert "200 tasks wait or run and 2.0 a second end" in problem["detail"]
        assert response.headers["Retry-After"] == "60"  # the longest; 171 are too many for 30 s

    @pytest.mark.usefixtures("slow")
    def test_who_has_time_is_taken(self, client: FlaskClient) -> None:
        """Half of the deadline is enough: 201 tasks take 100.5 s."""
        assert_problem(post(client, raw_form(deadline_s="200"), headers={"Prefer": "respond-async"}), 429, "overloaded")
        assert post(client, raw_form(deadline_s="201"), headers={"Prefer": "respond-async"}).status_code == 202

    @pytest.mark.usefixtures("slow")
    def test_what_is_refused_leaves_nothing(self, client: FlaskClient, tmp_path: Path) -> None:
        post(client)
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

    def test_the_queue_is_not_asked_for_each_request(self, client: FlaskClient, slow: SlowQueue, clock: Clock) -> None:
        for _ in range(5):
            post(client)
        assert slow.looks == 1
        clock.now += 0.5
        post(client)
        assert slow.looks == 2

    def test_what_came_since_the_last_look_counts(self, client: FlaskClient, slow: SlowQueue) -> None:
        slow.load = a_load(waiting=0, per_s=0.5)
        headers = {"Prefer": "respond-async"}
        answers = [post(client, raw_form(deadline_s="10"), headers=headers).status_code for _ in range(5)]
        assert answers == [202, 202, 202, 429, 429]
        assert slow.looks == 1

    def test_without_a_rate_nothing_is_refused(self, client: FlaskClient, slow: SlowQueue) -> None:
        slow.load = QueueLoad(200, 0)
        assert post(client, headers={"Prefer": "wait=0"}).status_code == 202


def test_requests_that_wait_for_the_store_are_counted(app: Flask) -> None:
    """They come one by one while the store answers none. It has 10 tasks, and 10 a second end: 15 more can end in half of 5 s."""
    services = services_of(app)
    stalled = StalledStore(services.store, a_load(waiting=10, per_s=10), reference(services.models.get("digits")))
    settings, clock = services.settings, Clock()
    admission = Admission(
        stalled, services.outbox_stats, settings.outbox, workers=list, worker_settings=settings.worker, clock=clock
    )
    accept_with(app, store=stalled, admission=admission)

    def ask() -> int:
        return post(app.test_client(), raw_form(deadline_s="5"), headers={"Prefer": "respond-async"}).status_code

    sent: list[Future[int]] = []
    with ThreadPoolExecutor(20) as callers:
        try:
            for _ in range(20):
                sent.append(callers.submit(ask))
                until(lambda: stalled.asked + sum(one.done() for one in sent) == len(sent), "it waits or is refused")
            assert [one.result() for one in sent if one.done()] == [429] * 5
        finally:
            stalled.go_on.set()
    assert Counter(one.result() for one in sent) == {202: 15, 429: 5}


def test_a_burst_after_a_quiet_time_is_no_overload(app: Flask, client: FlaskClient, idle_worker: FakeWorker) -> None:
    """Tasks that ended lately show how many came, not how many can be done: one in ten seconds is no rate of 0.1 a second."""
    post_async(client)
    idle_worker.work_off()
    for _ in range(5):
        post_async(client)
    components_of(app).submissions.parts.admission._figures._answers.clear()  # as half a second later
    assert post(client, headers={"Prefer": "wait=0"}, data=raw_form(deadline_s="30")).status_code == 202


def test_a_sink_that_has_been_down_for_long_refuses_more(app: Flask) -> None:
    stats = OutboxStats(entries=3, oldest_age_s=1.0)
    client = app.test_client()
    limits = OutboxSettings(max_entries=3)
    worker = services_of(app).settings.worker
    admission = Admission(services_of(app).store, lambda _: stats, limits, workers=list, worker_settings=worker)
    accept_with(app, admission=admission)
    assert post(client, headers={"Prefer": "respond-async"}).status_code == 202  # results go nowhere here
    with pytest.raises(ServiceUnavailable, match="3 results wait for kafka"):
        admission.check("predict.digits", model=DIGITS, deadline_s=30, sinks=("kafka",))


def test_a_disk_that_is_nearly_full_takes_no_more(make_app: Any, tmp_path: Path) -> None:
    client = make_app(uploads={"min_free_disk_mb": 2**40}).test_client()
    for headers in ({}, {"Prefer": "respond-async"}):
        response = post(client, headers=headers)
        assert_problem(response, 503, "storage_full")
        assert int(response.headers["Retry-After"]) == 30
        assert "min_free_disk_mb" in response.json["detail"]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
