"""Minimum time of a batch, from those that ran lately."""

from __future__ import annotations

import pytest
from pipeline_rig import message_of, queue_item
from support.fake_clock import FakeClock

from inference.domain import ModelRef
from tasks.pipeline.batch_times import BatchTimes
from tasks.pipeline.jobs import Delivery, Job

MODEL, NEXT = ModelRef("digits", "1", "sha256:0"), ModelRef("digits", "2", "sha256:2")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def times(clock: FakeClock) -> BatchTimes:
    return BatchTimes(lambda: MODEL, clock=clock)


def job_until(deadline_at: float) -> Job:
    delivery = Delivery(message_of(queue_item()), on_started=lambda: None, on_done=lambda _: None)
    return Job(queue_item(), [delivery], isolated=False, attempt=0, deadline_at=deadline_at)


def refused(times: BatchTimes, job: Job) -> list[Job]:
    """The job where a batch of four would end after its deadline."""
    ended: list[Job] = []
    in_time = times.in_time([job], 4, end=lambda job, _: ended.append(job))
    assert [*in_time, *ended] == [job]
    return ended


def note_twice(times: BatchTimes, size: int, seconds: float) -> None:
    for _ in range(2):
        times.note(MODEL, size, seconds)


def test_nothing_is_known_at_first(times: BatchTimes) -> None:
    assert times.least_s(8) == 0


def test_one_batch_may_have_met_a_machine_that_stood_still(times: BatchTimes) -> None:
    times.note(MODEL, 1, 9.0)
    assert times.least_s(1) == 0
    times.note(MODEL, 1, 0.2)
    assert times.least_s(1) == 0.2


def test_one_batch_of_its_size_does_not_outdo_smaller_ones(times: BatchTimes) -> None:
    note_twice(times, 1, 0.01)
    times.note(MODEL, 32, 9.0)
    assert times.least_s(32) == 0.01


def test_only_the_version_that_is_served_counts(clock: FakeClock) -> None:
    served = MODEL
    times = BatchTimes(lambda: served, clock=clock)
    note_twice(times, 1, 2.0)
    served = NEXT
    assert times.least_s(1) == 0
    times.note(NEXT, 1, 0.1)
    assert times.least_s(1) == 0
    times.note(NEXT, 1, 0.1)
    assert times.least_s(1) == 0.1
    served = MODEL
    assert times.least_s(1) == 2.0


def test_no_batch_takes_longer_than_its_images_one_by_one_at_warm_up(clock: FakeClock) -> None:
    times = BatchTimes(lambda: MODEL, warm_up_s=lambda: 0.05, clock=clock)
    note_twice(times, 2, 3.0)
    assert times.least_s(2) == 0.1
    assert times.least_s(1) == 0.05


def test_the_quickest_of_the_last_batches_counts(times: BatchTimes) -> None:
    for seconds in (0.3, 9.0, 0.2):
        times.note(MODEL, 8, seconds)
    assert times.least_s(8) == 0.2


def test_a_smaller_batch_takes_its_part(times: BatchTimes) -> None:
    note_twice(times, 8, 0.8)
    assert times.least_s(2) == pytest.approx(0.2)
    assert times.least_s(16) == 0.8


def test_much_smaller_batches_say_less(times: BatchTimes) -> None:
    note_twice(times, 1, 0.01)
    assert times.least_s(32) == 0.01
    note_twice(times, 32, 0.3)
    assert times.least_s(32) == 0.3
    assert times.least_s(1) == pytest.approx(0.3 / 32)


def test_what_ran_long_ago_is_forgotten(times: BatchTimes, clock: FakeClock) -> None:
    """Else a time when the machine was slow would refuse tasks for ever: none would run to show that it is not any more."""
    note_twice(times, 1, 5.0)
    clock.advance(11)
    assert times.least_s(1) == 0


@pytest.mark.parametrize(("left_s", "is_refused"), [(1.0, False), (0.5, False), (0.4, True), (0.0, True), (-1.0, True)])
def test_a_job_is_refused_that_has_less_time_than_its_batch_takes(
    times: BatchTimes, clock: FakeClock, left_s: float, *, is_refused: bool
) -> None:
    note_twice(times, 4, 0.45)
    assert bool(refused(times, job_until(clock() + left_s))) is is_refused


def test_without_a_known_time_a_job_runs_until_its_deadline(times: BatchTimes, clock: FakeClock) -> None:
    assert not refused(times, job_until(clock() + 0.01))
    assert refused(times, job_until(clock()))
