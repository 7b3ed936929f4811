"""Acceptance by the figures of a queue."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from support.fake_clock import FakeClock
from support.samples import MODEL, QUEUE

from api.acceptance.admission import Admission
from inference.domain import ModelRef
from inference.errors import Overloaded
from inference.rollout.worker_registry import LoadedModelInfo, WorkerInfo
from inference.settings import OutboxSettings, WorkerSettings
from inference.task_store import QueueLoad, RateChange, Room
from inference.task_store.outbox import OutboxStats

OTHER = ModelRef("tiny", "2", "sha256:01")


class Desk:
    """An admission, and its sources."""

    def __init__(self, *, has_turns: bool = False) -> None:
        self.load = QueueLoad(0, 0)
        self.workers: list[WorkerInfo] = []
        self.refused = 0
        self.readings = 0
        self.clock = FakeClock()
        self.background: list[Callable[[], None]] = []
        self.admission = Admission(
            self,  # type: ignore[arg-type]
            lambda _: OutboxStats(0, 0.0),
            OutboxSettings(),
            workers=lambda: self.workers,
            worker_settings=WorkerSettings(max_batch_size=8, prefetch_batches=3),
            has_turns=has_turns,
            clock=self.clock,
            run=self.background.append,
        )

    def get_queue_load(self, queue: str, *, refused: int) -> QueueLoad:
        assert queue == QUEUE
        self.refused += refused
        self.readings += 1
        return self.load

    def has(self, waiting: int, running: int, *, per_s: float, **others: Any) -> Desk:
        self.load = QueueLoad(waiting, running, **({"ended": per_s, "busy_s": 1, "batches": 9, "model": MODEL} | others))
        self.clock.advance(1)
        return self

    def with_workers(self, *images_per_s: float) -> Desk:
        loaded = [LoadedModelInfo(MODEL.name, MODEL.version, MODEL.digest, 1.0, rate) for rate in images_per_s]
        self.workers = [WorkerInfo(f"worker {number}", (model,)) for number, model in enumerate(loaded)]
        self.clock.advance(2)
        return self

    def check(
        self, deadline_s: float, *, count: int = 1, priority: int = 0, model: ModelRef = MODEL, owner: str = ""
    ) -> Room | None:
        return self.admission.check(
            QUEUE, model=model, deadline_s=deadline_s, sinks=(), count=count, priority=priority, owner=owner
        )

    def takes(self, deadline_s: float, **options: Any) -> bool:
        try:
            self.check(deadline_s, **options)
        except Overloaded:
            return False
        return True

    def accepts(self, deadline_s: float, *, count: int = 1) -> bool:
        """Whether tasks are let pass; they are accepted then."""
        taken = self.takes(deadline_s, count=count)
        if taken:
            self.admission.note_accepted(QUEUE, count)
        return taken


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_all_that_is_open_must_end_within_a_part_of_the_deadline(desk: Desk) -> None:
    desk.has(waiting=9, running=10, per_s=10)
    assert not desk.takes(3.9)
    assert not desk.takes(4, count=2)
    assert desk.check(4) == Room(24)  # the store counts exactly, so it may take some more


class TestOwners:
    """Owners take turns: a long queue of one owner is none of another."""

    @pytest.fixture
    def desk(self) -> Desk:
        return Desk(has_turns=True).has(waiting=1000, running=10, per_s=10, shares={"flood": 995, "lab": 5})

    def test_only_what_can_be_before_counts(self, desk: Desk) -> None:
        assert not desk.takes(100, owner="flood")
        assert not desk.takes(5, owner="lab")
        assert desk.takes(6, owner="lab")  # 10 run, 5 wait, and 6 of the flood take turns with these and the new one: 22 with it
        assert desk.takes(4, owner="new")

    def test_a_batch_lets_as_many_others_pass(self, desk: Desk) -> None:
        assert [desk.takes(6, owner="lab", count=count) for count in (2, 3)] == [True, False]
        assert [desk.takes(4, owner="new", count=count) for count in (2, 3)] == [True, False]

    def test_half_of_the_rate_is_left_if_another_owner_comes(self) -> None:
        desk = Desk(has_turns=True).has(waiting=9, running=10, per_s=10, shares={"lab": 9})
        assert not desk.takes(4.9, owner="lab")
        assert desk.check(5, owner="lab") == Room(22)

    def test_without_turns_all_count(self) -> None:
        desk = Desk().has(waiting=1000, running=10, per_s=10)
        assert not desk.takes(6, owner="lab")


class TestTasksOnTheirWayIntoTheStore:
    def test_they_count_until_the_store_has_answered(self, desk: Desk) -> None:
        desk.has(waiting=6, running=10, per_s=10)
        with desk.admission.admitted({QUEUE: 3}, ""):
            assert desk.takes(4)
            with desk.admission.admitted({QUEUE: 1}, ""):
                assert not desk.takes(4)
        assert desk.takes(4, count=4)

    def test_they_count_if_no_task_is_open(self, desk: Desk) -> None:
        """A batch that is the first may take 0.9 of its deadline."""
        desk.has(waiting=0, running=0, per_s=10)
        with desk.admission.admitted({QUEUE: 20}, ""):
            assert [desk.takes(4, count=count) for count in (16, 17)] == [True, False]

    def test_owners_who_take_turns_come_before_each_other_as_often(self) -> None:
        desk = Desk(has_turns=True).has(waiting=10, running=0, per_s=10, shares={"flood": 10})
        with desk.admission.admitted({QUEUE: 100}, "flood"):
            assert not desk.takes(10, owner="flood")
            assert [desk.takes(10, owner="lab", count=count) for count in (15, 16)] == [True, False]
        assert desk.takes(10, owner="lab", count=16)

    def test_without_turns_those_of_all_owners_count(self, desk: Desk) -> None:
        desk.has(waiting=10, running=0, per_s=10)
        with desk.admission.admitted({QUEUE: 100}, "flood"):
            assert not desk.takes(10, owner="lab")

    def test_they_count_no_more_after_an_error(self, desk: Desk) -> None:
        desk.has(waiting=6, running=10, per_s=10)
        with contextlib.suppress(ConnectionError), desk.admission.admitted({QUEUE: 20}, ""):
            raise ConnectionError
        assert desk.takes(4)


class TestBetweenTwoReadings:
    def test_accepted_tasks_count(self, desk: Desk) -> None:
        desk.has(waiting=6, running=10, per_s=10)
        assert [desk.accepts(4) for _ in range(5)] == [True] * 4 + [False]

    def test_tasks_that_came_to_nothing_do_not_count(self, desk: Desk) -> None:
        """Their image was wrong, or the object store did not take it."""
        desk.has(waiting=6, running=10, per_s=10)
        assert all(desk.takes(4) for _ in range(50))

    def test_two_readings_at_once_subtract_once(self, desk: Desk) -> None:
        desk.has(waiting=6, running=10, per_s=10)
        assert desk.accepts(4, count=4)
        for _ in range(2):
            desk.admission._read_figures(QUEUE)
        assert [desk.accepts(4) for _ in range(5)] == [True] * 4 + [False]

    def test_tasks_end_at_the_rate(self, desk: Desk) -> None:
        desk.has(waiting=10, running=10, per_s=20)
        assert not desk.takes(2)
        desk.clock.advance(0.2)
        assert [desk.accepts(2) for _ in range(5)] == [True] * 4 + [False]

    def test_no_task_ends_where_nothing_has_ended_lately(self, desk: Desk) -> None:
        desk.has(waiting=14, running=10, per_s=20, stalled_s=0.01)
        assert not desk.takes(2)
        desk.clock.advance(0.2)
        assert not desk.takes(2)

    def test_the_next_reading_has_counted_them(self, desk: Desk) -> None:
        desk.has(waiting=6, running=10, per_s=10)
        assert desk.accepts(4, count=4)
        desk.has(waiting=6, running=10, per_s=10)
        assert desk.accepts(4, count=4)


class TestReading:
    def test_no_request_waits_for_figures_that_are_a_little_old(self, desk: Desk) -> None:
        desk.has(waiting=100, running=10, per_s=10)
        assert not desk.takes(4)
        desk.load = QueueLoad(0, 0)
        desk.clock.advance(0.2)
        assert not desk.takes(4)
        assert desk.readings == 1
        for call in desk.background:
            call()
        assert desk.readings == 2
        assert desk.takes(4)

    def test_figures_that_are_too_old_are_read_at_once(self, desk: Desk) -> None:
        desk.has(waiting=100, running=10, per_s=10)
        assert not desk.takes(4)
        desk.has(waiting=0, running=0, per_s=10)
        assert desk.takes(4)
        assert desk.readings == 2


def test_a_queue_without_a_rate_takes_all(desk: Desk) -> None:
    desk.load = QueueLoad(500, 32)
    assert desk.check(1) is None


def test_an_empty_queue_takes_one_whatever_its_rate_was(desk: Desk) -> None:
    desk.has(waiting=0, running=0, per_s=0.01)
    assert desk.takes(0.1)
    assert not desk.takes(0.1, count=2)


def test_tasks_that_come_together_to_an_empty_queue_have_most_of_their_deadline(desk: Desk) -> None:
    desk.has(waiting=0, running=0, per_s=10)
    assert desk.takes(5, count=45)
    assert not desk.takes(5, count=46)
    desk.has(waiting=1, running=0, per_s=10)
    assert not desk.takes(5, count=30)


def test_a_queue_that_stands_still_is_not_counted_on(desk: Desk) -> None:
    desk.has(waiting=5, running=5, per_s=100, stalled_s=0.5)
    assert not desk.takes(1)
    assert not desk.takes(0.9)
    assert desk.takes(5)


def test_a_worker_that_is_warm_is_known_before_anything_has_ended(desk: Desk) -> None:
    desk.with_workers(20).load = QueueLoad(8, 1)
    assert not desk.takes(0.8)
    assert desk.check(1) == Room(12, window=32)


def test_the_first_batch_does_not_say_it_all(desk: Desk) -> None:
    """It was slow: one image in four seconds, of a model that does twenty a second."""
    desk.with_workers(20).has(waiting=30, running=4, per_s=1, ended=1, busy_s=4, batches=1)
    room = desk.check(30)
    assert room is not None
    assert 50 <= room.tasks <= 60
    desk.has(waiting=1, running=1, per_s=1, ended=3, busy_s=12, batches=3.3)
    assert desk.check(30) == Room(4, window=32)


def test_an_idle_queue_is_as_fast_as_a_warm_worker_says(desk: Desk) -> None:
    """Tasks that came lately, one by one, say nothing of a batch."""
    desk.with_workers(1000).has(waiting=0, running=0, per_s=50)
    assert desk.takes(1, count=256)
    desk.has(waiting=1, running=0, per_s=50)
    assert not desk.takes(1, count=256)


def test_several_workers_may_share_a_machine(desk: Desk) -> None:
    desk.with_workers(20, 15).load = QueueLoad(8, 1)
    assert desk.check(1) == Room(12, window=64)


def test_another_version_is_not_as_fast_as_the_one_that_runs(desk: Desk) -> None:
    desk.with_workers(10).has(waiting=9, running=0, per_s=1000, model=OTHER)
    assert not desk.takes(1.6)
    assert desk.check(2) == Room(12, window=32)


class TestChangeOfTheModel:
    CHANGE = RateChange(OTHER, 0.5)

    def test_before_it_tasks_must_end_in_time_at_the_rate_to_come(self, desk: Desk) -> None:
        desk.has(waiting=9, running=10, per_s=10, change=self.CHANGE)
        assert not desk.takes(7.9)
        assert desk.takes(8)

    def test_after_it_the_rate_is_that_of_the_new_version(self, desk: Desk) -> None:
        desk.has(waiting=9, running=10, per_s=10, model=OTHER, change=self.CHANGE)
        for model in (MODEL, OTHER):  # this process has read the desired state before the change, or after it
            assert not desk.takes(3.9, model=model)
            assert desk.takes(4, model=model)

    def test_until_the_new_version_has_ended_tasks_its_rate_is_expected(self, desk: Desk) -> None:
        desk.has(waiting=9, running=10, per_s=10, change=self.CHANGE)
        assert not desk.takes(7.9, model=OTHER)
        assert desk.takes(8, model=OTHER)

    def test_a_quicker_version_is_no_reason_to_take_more_before_it(self, desk: Desk) -> None:
        desk.has(waiting=9, running=10, per_s=10, change=RateChange(OTHER, 1.0))
        assert not desk.takes(3.9)
        assert desk.takes(4)


def test_what_passes_is_missing_to_the_others(desk: Desk) -> None:
    desk.has(waiting=10, running=9, per_s=10, urgent_per_s=5)
    assert not desk.takes(7.9)
    assert desk.takes(8)
    desk.has(waiting=10, running=9, per_s=10, urgent_per_s=50)
    assert not desk.takes(39)
    assert desk.takes(40)


def test_a_task_with_a_priority_is_left_to_the_store(desk: Desk) -> None:
    desk.with_workers(10).has(waiting=1000, running=8, per_s=10)
    assert desk.check(8, priority=1) == Room(48, window=32)


class TestRetryAfter:
    def test_it_is_when_there_will_be_room(self, desk: Desk) -> None:
        desk.has(waiting=50, running=9, per_s=10)
        with pytest.raises(Overloaded) as refused:
            desk.check(4)
        assert refused.value.retry_after_s == pytest.approx(4.0)  # 60 tasks, 20 may be there

    def test_each_comes_after_the_one_before(self, desk: Desk) -> None:
        desk.has(waiting=10, running=10, per_s=10)
        waits = []
        for _ in range(81):
            with pytest.raises(Overloaded) as refused:
                desk.check(4)
            waits.append(refused.value.retry_after_s)
        assert waits == sorted(waits)
        assert waits[0] == 1
        assert waits[80] == pytest.approx(16.1)  # half of the rate is left to new ones

    def test_other_processes_hear_of_those_that_were_refused(self, desk: Desk) -> None:
        desk.has(waiting=10, running=10, per_s=10, returning=80)
        with pytest.raises(Overloaded) as refused:
            desk.check(4, count=3)
        assert refused.value.retry_after_s == pytest.approx(16.3)
        assert desk.refused == 0
        desk.clock.advance(1)
        assert not desk.takes(4)
        assert desk.refused == 3

    def test_it_is_a_minute_at_most(self, desk: Desk) -> None:
        desk.has(waiting=100_000, running=10, per_s=10)
        with pytest.raises(Overloaded) as refused:
            desk.check(4)
        assert refused.value.retry_after_s == 60

    def test_it_is_some_seconds_where_nothing_is_known(self, desk: Desk) -> None:
        assert desk.admission.retry_after_s(QUEUE) == 5
