"""A pipeline's thread works, waits for a store that is down, or takes the process down; it never just ends."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import pytest
from pipeline_rig import PATIENCE_S, wait_until
from support.fake_clock import FakeClock

from inference.errors import InvalidImage, ServiceUnavailable
from inference.runtime.loop_watch import TURN_LIMIT_S, LoopWatch
from tasks.pipeline.stage import Stage


class Steps(Stage):
    name = "steps"

    def __init__(self, step: Callable[[], None], **options: int) -> None:
        self.faults = 0
        super().__init__(on_fault=self._fault, **options)
        self._step = step

    def step(self) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            self._step()

    def _fault(self) -> None:
        self.faults += 1


def test_it_steps_until_it_is_stopped() -> None:
    steps: list[int] = []
    stage = Steps(lambda: steps.append(1))
    stage.start()
    wait_until(lambda: len(steps) > 2, "three steps")
    stage.stop()
    assert stage.join(PATIENCE_S)
    assert stage.faults == 0


def test_it_steps_on_as_many_threads_as_it_was_given() -> None:
    names: set[str] = set()
    line = threading.Barrier(3)

    def step() -> None:
        names.add(threading.current_thread().name)
        line.wait(PATIENCE_S)  # only three threads at a time get past it

    stage = Steps(step, threads=3)
    stage.start()
    wait_until(lambda: len(names) == 3, "three threads")
    stage.stop()
    line.abort()
    assert stage.join(PATIENCE_S)
    assert names == {"steps-0", "steps-1", "steps-2"}


def test_a_step_that_fails_takes_the_process_down(caplog: pytest.LogCaptureFixture) -> None:
    stage = Steps([].pop)
    stage.start()
    assert stage.join(PATIENCE_S)
    assert stage.faults == 1
    assert "the steps thread failed" in caplog.text


def test_join_says_whether_the_thread_has_ended() -> None:
    gate = threading.Event()
    stage = Steps(lambda: gate.wait(PATIENCE_S) and None)
    stage.start()
    stage.stop()
    assert not stage.join(0.01)
    gate.set()
    assert stage.join(PATIENCE_S)


def test_a_stage_that_never_started_has_ended() -> None:
    assert Steps(lambda: None).join(0)


def test_a_store_that_comes_back_answers_the_waiting_call() -> None:
    answers = iter([ServiceUnavailable("down"), ServiceUnavailable("down"), "up"])

    def call() -> str:
        answer = next(answers)
        if isinstance(answer, ServiceUnavailable):
            raise answer
        return answer

    stage = Steps(lambda: None)
    stage.stop()  # so that nothing is waited for between two tries
    assert stage.until_available(call, give_up=lambda: False) == "up"


def test_a_call_is_given_up_when_it_is_time_to() -> None:
    tries: list[int] = []

    def call() -> None:
        tries.append(1)
        raise ServiceUnavailable("down")

    stage = Steps(lambda: None)
    stage.stop()
    assert stage.until_available(call, give_up=stage.stopping.is_set) is None
    assert len(tries) == 1


def test_an_error_that_waiting_does_not_mend_is_raised() -> None:
    def call() -> None:
        raise InvalidImage("no image")

    with pytest.raises(InvalidImage):
        Steps(lambda: None).until_available(call, give_up=lambda: False)


def test_a_step_that_hangs_is_stuck_and_its_neighbour_is_not() -> None:
    clock, hangs, goes_on = FakeClock(), threading.Event(), threading.Event()

    def step() -> None:
        if threading.current_thread().name == "steps-0":
            hangs.set()
            goes_on.wait(PATIENCE_S)

    stage = Steps(step, threads=2)
    stage.watch = LoopWatch(clock)
    stage.start()
    assert hangs.wait(PATIENCE_S)
    clock.advance(TURN_LIMIT_S + 1)
    wait_until(lambda: stage.watch.stuck() == {"steps-0": TURN_LIMIT_S + 1}, "only the first hangs")
    goes_on.set()
    wait_until(lambda: stage.watch.stuck() == {}, "it goes on")
    stage.stop()
    assert stage.join(PATIENCE_S)


def test_a_store_that_is_down_for_hours_is_no_reason_to_be_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.pipeline.stage.RETRY_INTERVAL_S", 0.0)
    clock, found, tries = FakeClock(), list[dict[str, float]](), list[int]()

    def call() -> None:
        tries.append(1)
        clock.advance(TURN_LIMIT_S - 1)
        found.append(stage.watch.stuck())
        raise ServiceUnavailable("down")

    stage = Steps(lambda: stage.until_available(call, give_up=lambda: len(tries) >= 50))
    stage.watch = LoopWatch(clock)
    stage.start()
    wait_until(lambda: len(tries) >= 50, "many tries")
    stage.stop()
    assert stage.join(PATIENCE_S)
    assert found[:50] == [{}] * 50
