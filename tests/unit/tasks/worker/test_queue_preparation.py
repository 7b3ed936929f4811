"""Waiting time of a slower version for a queue that was filled at the rate of the previous one."""

from __future__ import annotations

import pytest
from support.fake_clock import FakeClock

from inference.domain import ModelRef
from inference.errors import ServiceUnavailable
from inference.models.predictor.protocol import Loaded
from inference.task_store import QueueLoad, RateChange
from tasks.worker.queue_preparation import QueuePreparation, expected_change

QUEUE, COMING = "predict.tiny", ModelRef("tiny", "2", "sha256:01")


class Queue:
    """A full queue: `per_s` of its tasks end a second, and as many are accepted as end in half of `deadline_s`."""

    def __init__(self, *, per_s: float, deadline_s: float) -> None:
        self.per_s, self.deadline_s = per_s, deadline_s
        self.tasks = per_s * deadline_s / 2
        self.share = 1.0
        self.is_down = False
        self.clock = FakeClock()
        self.began = self.clock()
        self.preparation = QueuePreparation(self, clock=self.clock, sleep=self.sleep)  # type: ignore[arg-type]

    def sleep(self, seconds: float) -> None:
        self.clock.advance(seconds)
        accepted = max(self.tasks - self.per_s * seconds, self.share * self.per_s * self.deadline_s / 2)
        self.tasks = min(self.tasks, accepted)

    @property
    def waited_s(self) -> float:
        return self.clock() - self.began

    def get_queue_load(self, queue: str) -> QueueLoad:
        self._check(queue)
        return QueueLoad(round(self.tasks), 0)

    def expect_change(self, queue: str, change: RateChange) -> None:
        self._check(queue)
        self.share = change.share

    def _check(self, queue: str) -> None:
        assert queue == QUEUE
        if self.is_down:
            raise ServiceUnavailable("no")


@pytest.mark.parametrize("deadline_s", [2, 5, 30])
@pytest.mark.parametrize("share", [0.25, 1 / 3, 0.45])
def test_tasks_that_were_accepted_before_it_end_in_time_after_it(deadline_s: float, share: float) -> None:
    queue = Queue(per_s=100, deadline_s=deadline_s)
    queue.preparation.await_short_queue(QUEUE, RateChange(COMING, share), give_up=lambda: False)
    left_s = queue.tasks / (100 * share)
    assert queue.waited_s + left_s <= deadline_s * 1.1
    assert queue.waited_s <= deadline_s / 2


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_version_that_is_fast_enough_does_not_wait(share: float) -> None:
    queue = Queue(per_s=100, deadline_s=30)
    queue.preparation.await_short_queue(QUEUE, RateChange(COMING, share), give_up=lambda: False)
    assert queue.waited_s == 0


def test_it_waits_ten_seconds_at_most() -> None:
    queue = Queue(per_s=0, deadline_s=30)
    queue.tasks = 1000
    queue.preparation.await_short_queue(QUEUE, RateChange(COMING, 0.1), give_up=lambda: False)
    assert queue.waited_s == pytest.approx(10, abs=0.2)


def test_it_does_not_wait_for_a_store_that_is_down() -> None:
    queue = Queue(per_s=100, deadline_s=30)
    queue.is_down = True
    queue.preparation.await_short_queue(QUEUE, RateChange(COMING, 0.1), give_up=lambda: False)
    assert queue.waited_s == 0


@pytest.mark.parametrize(("coming", "share"), [(25.0, 0.25), (100.0, 1.0), (200.0, 1.0), (0.0, 1.0)])
def test_the_share_is_that_of_the_warm_ups(coming: float, share: float) -> None:
    now, then = (Loaded("tiny", 3, 1.0, images_per_s=rate) for rate in (100.0, coming))
    assert expected_change(COMING, now, then) == RateChange(COMING, share)


@pytest.mark.parametrize(("slowdown", "share"), [(1.0, 0.2), (2.0, 0.4), (9.0, 1.0)])
def test_both_are_compared_on_the_part_of_the_cores_that_they_have_now(slowdown: float, share: float) -> None:
    now, then = (Loaded("tiny", 3, 1.0, images_per_s=rate) for rate in (100.0, 20.0))
    assert expected_change(COMING, now, then, slowdown) == RateChange(COMING, share)


def test_without_a_warm_up_no_change_is_expected() -> None:
    assert expected_change(COMING, None, Loaded("tiny", 3, 1.0, images_per_s=9.0)).share == 1.0
