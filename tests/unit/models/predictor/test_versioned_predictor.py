"""Processes that batches go to while models change, and processes that are left."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest
from support.fake_clock import FakeClock
from support.fake_process import FakeProcess
from support.waiting import until

from inference.domain import ModelRef
from inference.errors import ConfigurationError
from inference.models.predictor.client import BatchPredictions, PredictorNotRunning
from inference.models.predictor.versioned_predictor import VersionedPredictor

DIGITS = [ModelRef("digits", f"{number}", f"sha256:{number}") for number in range(3)]
OTHER = ModelRef("other", "1", "sha256:00")


def never() -> bool:
    return False


class ReplacedProcess(FakeProcess):
    """A process that is replaced at the moment at which it is called, once."""

    on_call: Callable[[], None] | None = None

    def start(self, should_stop: Callable[[], bool]) -> bool:
        self._interrupt()
        return super().start(should_stop)

    def predict(self, model: str, slots: Sequence[int]) -> BatchPredictions:
        self._interrupt()
        return super().predict(model, slots)

    def _interrupt(self) -> None:
        on_call, self.on_call = self.on_call, None
        if on_call is not None:
            on_call()


def process(digits: ModelRef, *, running: bool = True) -> ReplacedProcess:
    made = ReplacedProcess({"digits": digits, "other": OTHER})
    made.is_running = running
    return made


@pytest.fixture
def first() -> ReplacedProcess:
    return process(DIGITS[1])


@pytest.fixture
def predictor(first: ReplacedProcess) -> VersionedPredictor:
    return VersionedPredictor(first)


def test_the_answer_names_what_ran(predictor: VersionedPredictor, first: ReplacedProcess) -> None:
    assert predictor.predict("digits", [3]).model == DIGITS[1]
    assert predictor.predict("other", [4]).model == OTHER
    assert first.calls == [("digits", (3,)), ("other", (4,))]


def test_after_a_switch_batches_run_on_the_new_process_and_the_old_one_ends(
    predictor: VersionedPredictor, first: ReplacedProcess
) -> None:
    predictor.switch_to(process(DIGITS[2]))
    assert predictor.predict("digits", [0]).model == DIGITS[2]
    assert predictor.references == {"digits": DIGITS[2], "other": OTHER}
    assert predictor.loaded.keys() == {"digits", "other"}
    assert first.was_retired


def test_a_batch_whose_process_is_replaced_before_it_gets_it_runs_on_the_new_one(
    predictor: VersionedPredictor, first: ReplacedProcess
) -> None:
    first.on_call = lambda: predictor.switch_to(process(DIGITS[2]))
    assert predictor.predict("digits", [0]).model == DIGITS[2]


def test_a_process_that_is_down_is_said_so_and_started(predictor: VersionedPredictor, first: ReplacedProcess) -> None:
    first.stop()
    with pytest.raises(PredictorNotRunning):
        predictor.predict("digits", [0])
    assert predictor.start(never)
    assert predictor.predict("digits", [0]).model == DIGITS[1]


def test_a_process_that_is_replaced_while_it_is_started_again_does_not_stay(
    predictor: VersionedPredictor, first: ReplacedProcess
) -> None:
    """It had crashed, and another one is served meanwhile."""
    first.stop()
    second = process(DIGITS[2])
    first.on_call = lambda: predictor.switch_to(second)
    assert predictor.start(never)
    assert (first.is_running, second.is_running) == (False, True)


def test_a_start_ends_once_another_process_serves(predictor: VersionedPredictor, first: ReplacedProcess) -> None:
    """The old models would load for up to `load_timeout_s`, while the new ones are warm."""
    first.stop()
    first.gate.clear()
    starting = threading.Thread(target=lambda: predictor.start(never), daemon=True)
    starting.start()
    until(lambda: first.starts, "the start")
    second = process(DIGITS[2])
    predictor.switch_to(second)
    starting.join(5)
    assert not starting.is_alive()
    assert (first.is_running, second.is_running) == (False, True)


def test_a_process_that_does_not_come_up_is_said_so() -> None:
    predictor = VersionedPredictor(FakeProcess({"digits": DIGITS[1]}, fails="no"))
    with pytest.raises(ConfigurationError, match="no"):
        predictor.start(never)


def test_a_stop_ends_the_process(predictor: VersionedPredictor, first: ReplacedProcess) -> None:
    predictor.stop()
    assert not first.is_running
    assert predictor.loaded == {}


class TestSlowdown:
    """A batch of 1 takes 4 ms at warm-up, one of 8 takes 16, so that two batches of 8 hold 16 images in 32."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def process(self) -> FakeProcess:
        process = FakeProcess({"digits": DIGITS[1]}, cost_ms={1: 4.0, 8: 16.0})
        process.is_running = True
        return process

    @pytest.fixture
    def predictor(self, process: FakeProcess, clock: FakeClock) -> VersionedPredictor:
        return VersionedPredictor(process, clock)

    @pytest.mark.parametrize(("size", "ms", "found"), [(1, 8.0, 2.0), (4, 48.0, 3.0), (16, 64.0, 2.0), (16, 20.0, 1.0)])
    def test_it_is_the_time_of_a_batch_by_that_at_warm_up(
        self, predictor: VersionedPredictor, process: FakeProcess, size: int, ms: float, found: float
    ) -> None:
        process.predict_ms = ms
        predictor.predict("digits", range(size))
        assert predictor.slowdown("digits") == found

    def test_the_least_of_recent_batches_counts(
        self, predictor: VersionedPredictor, process: FakeProcess, clock: FakeClock
    ) -> None:
        for process.predict_ms in (20.0, 12.0, 16.0):
            predictor.predict("digits", [0])
            clock.advance(2)
        assert predictor.slowdown("digits") == 3.0
        clock.advance(2)
        assert predictor.slowdown("digits") == 4.0
        clock.advance(2)
        assert predictor.slowdown("digits") == 1.0

    def test_batches_of_another_version_do_not_count(self, predictor: VersionedPredictor, process: FakeProcess) -> None:
        process.predict_ms = 8.0
        predictor.predict("digits", [0])
        second = FakeProcess({"digits": DIGITS[2]}, cost_ms={1: 1.0})
        second.is_running = True
        predictor.switch_to(second)
        assert predictor.slowdown("digits") == 1.0

    def test_batches_of_a_model_with_code_do_not_count(self, predictor: VersionedPredictor, process: FakeProcess) -> None:
        process.predict_ms, process.custom = 400.0, (b"{}",)
        predictor.predict("digits", [0])
        assert predictor.slowdown("digits") == 1.0

    def test_without_a_warm_up_it_is_unknown(self, predictor: VersionedPredictor, process: FakeProcess) -> None:
        predictor.predict("digits", [0])
        process.stop()
        assert predictor.slowdown("digits") == 1.0
