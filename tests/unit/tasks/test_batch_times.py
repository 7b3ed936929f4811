"""How long a batch takes at least, from those that ran lately."""

from __future__ import annotations

import pytest
from pipeline_rig import queue_item
from support.fake_clock import FakeClock

from tasks.batch_times import BatchTimes
from tasks.jobs import Job


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def times(clock: FakeClock) -> BatchTimes:
    return BatchTimes(clock)


def test_nothing_is_known_at_first(times: BatchTimes) -> None:
    assert times.least_s(8) == 0


def test_the_quickest_of_the_last_batches_counts(times: BatchTimes) -> None:
    for seconds in (0.3, 9.0, 0.2):
        times.note(8, seconds)
    assert times.least_s(8) == 0.2


def test_a_smaller_batch_takes_its_part(times: BatchTimes) -> None:
    times.note(8, 0.8)
    assert times.least_s(2) == pytest.approx(0.2)
    assert times.least_s(16) == 0.8


def test_much_smaller_batches_say_less(times: BatchTimes) -> None:
    times.note(1, 0.01)
    assert times.least_s(32) == 0.01
    times.note(32, 0.3)
    assert times.least_s(32) == 0.3
    assert times.least_s(1) == pytest.approx(0.3 / 32)


def test_what_ran_long_ago_is_forgotten(times: BatchTimes, clock: FakeClock) -> None:
    """Else a time when the machine was slow would refuse tasks for ever: none would run to show that it is not any more."""
    times.note(1, 5.0)
    clock.advance(11)
    assert times.least_s(1) == 0


@pytest.mark.parametrize(("left_s", "is_refused"), [(1.0, False), (0.5, False), (0.4, True), (0.0, True), (-1.0, True)])
def test_a_job_is_refused_that_has_less_time_than_its_batch_takes(
    times: BatchTimes, clock: FakeClock, left_s: float, *, is_refused: bool
) -> None:
    times.note(4, 0.45)
    job = Job(queue_item(), [], alone=False, attempt=0, deadline_at=clock() + left_s)
    assert (times.refusal(job, 4) is not None) is is_refused


def test_without_a_known_time_a_job_runs_until_its_deadline(times: BatchTimes, clock: FakeClock) -> None:
    assert times.refusal(Job(queue_item(), [], alone=False, attempt=0, deadline_at=clock() + 0.01), 4) is None
    assert times.refusal(Job(queue_item(), [], alone=False, attempt=0, deadline_at=clock()), 4) is not None
