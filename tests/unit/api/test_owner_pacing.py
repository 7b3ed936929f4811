"""Pace of owners: pauses of requests, for an owner whose tasks fill a queue that others use too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from api_rig import MakeApp, assert_problem, encoded_form, raw_form, raw_image
from callers import ALICE, BOB, ClientOf, find_callers

from api.acceptance.pacing import OwnerPacing
from api.components import components_of
from inference.errors import RateLimited
from inference.task_store import QueueLoad

HELD = 10
MAX_BYTES = 1_000


class Rig:
    """The pacing, with a clock and shares that the test sets."""

    def __init__(self, **shares: int) -> None:
        self.shares = shares
        self.now_s = 1000.0
        self.pauses: list[float] = []
        #: called during a pause
        self.meanwhile: Callable[[], None] = lambda: None
        #: 50 tasks a second
        self.ended, self.busy_s = 100.0, 2.0
        self.pacing = OwnerPacing(
            self._load, max_held_tasks=HELD, max_image_bytes=MAX_BYTES, clock=lambda: self.now_s, sleep=self._sleep
        )

    def pause_of(self, owner: str, count: int = 1) -> float:
        """The pause of a request, seconds."""
        self.pauses = []
        self.pacing.wait("photos", owner, count)
        return sum(self.pauses)

    def _load(self, queue: str) -> QueueLoad:
        assert queue == "photos"
        return QueueLoad(sum(self.shares.values()), 0, ended=self.ended, busy_s=self.busy_s, shares=self.shares)

    def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.meanwhile()


def test_an_owner_alone_never_waits() -> None:
    rig = Rig(flood=10_000)
    assert rig.pause_of("flood") == 0


def test_nobody_waits_without_owners() -> None:
    rig = Rig(flood=10_000, lab=1)
    assert rig.pause_of("") == 0


def test_a_long_queue_beside_waiting_tasks_of_others() -> None:
    rig = Rig(flood=10_000, lab=1)
    assert rig.pause_of("flood") == 1
    assert rig.pause_of("lab") == 0


def test_the_pause_is_a_tenth_of_the_time_of_the_waiting_tasks() -> None:
    rig = Rig(flood=100, lab=1)
    assert rig.pause_of("flood") == pytest.approx(0.1 * 100 / 50)


def test_tasks_that_workers_hold_cause_no_pause() -> None:
    rig = Rig(flood=HELD, lab=1)
    assert rig.pause_of("flood") == 0
    rig.shares["flood"] += 1
    assert rig.pause_of("flood") > 0


def test_a_batch_waits_for_up_to_the_time_of_its_own_tasks() -> None:
    rig = Rig(flood=10_000, lab=1)
    assert rig.pause_of("flood", count=200) == pytest.approx(200 / 50)


def test_the_client_of_a_batch_gets_its_answer_before_it_gives_up() -> None:
    rig = Rig(flood=1_000_000, lab=1)
    assert rig.pause_of("flood", count=100_000) == 10


def test_a_queue_whose_rate_is_not_known() -> None:
    rig = Rig(flood=10_000, lab=1)
    rig.ended = rig.busy_s = 0.0
    assert rig.pause_of("flood") == 1


def test_others_count_for_a_while_after_their_last_request() -> None:
    rig = Rig(flood=10_000)
    assert rig.pause_of("lab") == 0  # its tasks start at once, so that none of them waits
    assert rig.pause_of("flood") == 1
    rig.now_s += 4
    assert rig.pause_of("flood") == 1
    rig.now_s += 2
    assert rig.pause_of("flood") == 0


def test_too_many_waiting_requests() -> None:
    rig = Rig(flood=10_000, lab=1)
    waiting = 0

    def send_another() -> None:
        nonlocal waiting
        waiting += 1
        rig.pacing.wait("photos", "flood")

    rig.meanwhile = send_another
    with pytest.raises(RateLimited) as refusal:
        rig.pause_of("flood")
    assert waiting == 100
    assert refusal.value.retry_after_s == 1
    rig.meanwhile = lambda: None
    assert rig.pause_of("flood") == 1  # each has left its place


def test_waiting_requests_leave_room_for_the_bodies_of_others() -> None:
    rig = Rig(flood=10_000, lab=1)
    sizes = iter([400, 200, 201, 200])  # the third one is too much

    def send_another() -> None:
        if (size := next(sizes, None)) is not None:
            rig.pacing.wait("photos", "flood", image_bytes=size)

    rig.meanwhile = send_another
    with pytest.raises(RateLimited) as refusal:
        rig.pacing.wait("photos", "flood", image_bytes=200)
    assert refusal.value.expected == "images of at most 1000 bytes at a time"
    assert list(sizes) == [200]
    rig.meanwhile = lambda: None
    rig.pacing.wait("photos", "flood", image_bytes=MAX_BYTES + 1)  # alone, it is not too much
    assert not rig.pacing._paused


def test_requests_wait_before_they_are_accepted(make_app: MakeApp, redis_url: str) -> None:
    app = make_app(broker={"url": redis_url}, worker={"max_batch_size": 1, "prefetch_batches": 1})
    find_callers(app)
    alice, bob = ClientOf(app.test_client(), ALICE), ClientOf(app.test_client(), BOB)
    parts = components_of(app).submissions.parts
    pauses: list[float] = []
    parts.pacing._sleep = pauses.append
    later = {"Prefer": "respond-async"}
    for _ in range(5):
        assert alice.post("/inference", data=raw_form(), headers=later).status_code == 202
    assert bob.post("/inference", data=raw_form(), headers=later).status_code == 202
    assert pauses == []
    parts.admission._figures._answers.clear()
    assert alice.post("/inference", data=raw_form(), headers=later).status_code == 202
    assert len(pauses) == 1
    images = encoded_form([raw_image()] * 2, {"metadata": '{"shape": [8, 8, 1], "dtype": "float32"}'})
    assert alice.post("/inference/batch", headers=later, **images).status_code == 202
    assert len(pauses) == 2
    assert bob.post("/inference", data=raw_form(), headers=later).status_code == 202
    assert len(pauses) == 2


def test_the_answer_when_too_many_requests_wait(make_app: MakeApp) -> None:
    app = make_app()
    find_callers(app)
    pacing = components_of(app).submissions.parts.pacing
    pacing._pause_s = lambda *_sent: 1.0  # type: ignore[method-assign]
    pacing._paused[ALICE.owner].requests = 100
    response = ClientOf(app.test_client(), ALICE).post("/inference", data=raw_form())
    assert_problem(response, 429, "rate_limited", expected="at most 100 requests at a time")
    assert response.headers["Retry-After"] == "1"
