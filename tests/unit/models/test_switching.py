"""Which process a batch goes to while models change, and which processes are left."""

from __future__ import annotations

import pytest
from support.fake_process import FakeProcess

from inference.errors import ConfigurationError
from inference.messages import ModelRef
from inference.models.predictor import PredictorNotRunning
from inference.models.switching import SwitchingPredictor

DIGITS = [ModelRef("digits", f"{number}", f"sha256:{number}") for number in range(5)]
OTHER = ModelRef("other", "1", "sha256:00")


def never() -> bool:
    return False


def process(digits: ModelRef, *, running: bool = True) -> FakeProcess:
    made = FakeProcess({"digits": digits, "other": OTHER})
    made.is_running = running
    return made


def ran_on(predictor: SwitchingPredictor, model: ModelRef) -> ModelRef:
    return predictor.predict(model, [0]).model


@pytest.fixture
def current() -> FakeProcess:
    return process(DIGITS[1])


@pytest.fixture
def predictor(current: FakeProcess) -> SwitchingPredictor:
    return SwitchingPredictor(current)


@pytest.mark.parametrize("asked", DIGITS)
def test_alone_the_current_process_runs_every_version(predictor: SwitchingPredictor, asked: ModelRef) -> None:
    assert ran_on(predictor, asked) == DIGITS[1]


def test_a_candidate_runs_its_own_version_and_nothing_else(predictor: SwitchingPredictor) -> None:
    """A task may be accepted for it before this worker has heard of the commit."""
    candidate = process(DIGITS[2])
    predictor.stand_by(candidate)
    assert [ran_on(predictor, model) for model in DIGITS[:4]] == [DIGITS[1], DIGITS[1], DIGITS[2], DIGITS[1]]
    assert ran_on(predictor, OTHER) == OTHER
    assert candidate.calls == [("digits", (0,))]
    assert predictor.references["digits"] == DIGITS[1]


def test_once_promoted_it_is_the_current_one_and_the_former_runs_its_own(
    predictor: SwitchingPredictor, current: FakeProcess
) -> None:
    predictor.stand_by(process(DIGITS[2]))
    predictor.promote()
    assert [ran_on(predictor, model) for model in DIGITS[:4]] == [DIGITS[2], DIGITS[1], DIGITS[2], DIGITS[2]]
    assert predictor.references["digits"] == DIGITS[2]
    assert predictor.former_references == [DIGITS[1]]
    assert current.is_running


def test_the_former_ends_and_its_tasks_run_on_the_current(predictor: SwitchingPredictor, current: FakeProcess) -> None:
    predictor.stand_by(process(DIGITS[2]))
    predictor.promote()
    predictor.end_former()
    assert current.was_retired
    assert predictor.former_references == []
    assert ran_on(predictor, DIGITS[1]) == DIGITS[2]


def test_there_is_one_former_process_at_the_most(predictor: SwitchingPredictor, current: FakeProcess) -> None:
    second = process(DIGITS[2])
    for candidate in (second, process(DIGITS[3])):
        predictor.stand_by(candidate)
        predictor.promote()
    assert current.was_retired
    assert second.is_running
    assert [ran_on(predictor, model) for model in DIGITS[1:4]] == [DIGITS[3], DIGITS[2], DIGITS[3]]


def test_a_candidate_that_is_dismissed_is_gone(predictor: SwitchingPredictor) -> None:
    candidate = process(DIGITS[2])
    predictor.stand_by(candidate)
    predictor.dismiss()
    assert candidate.was_retired
    assert ran_on(predictor, DIGITS[2]) == DIGITS[1]
    predictor.promote()
    assert predictor.references["digits"] == DIGITS[1]


def test_what_is_not_there_can_be_ended(predictor: SwitchingPredictor, current: FakeProcess) -> None:
    predictor.dismiss()
    predictor.end_former()
    assert current.is_running


def test_a_start_starts_all_that_is_down(predictor: SwitchingPredictor, current: FakeProcess) -> None:
    predictor.stand_by(process(DIGITS[2]))
    predictor.promote()
    candidate = process(DIGITS[3])
    predictor.stand_by(candidate)
    current.stop()
    candidate.stop()
    with pytest.raises(PredictorNotRunning):
        predictor.predict(DIGITS[1], [0])
    assert predictor.start(never)
    assert [ran_on(predictor, model) for model in DIGITS[1:4]] == DIGITS[1:4]


def test_a_former_process_that_does_not_come_up_is_given_up(predictor: SwitchingPredictor, current: FakeProcess) -> None:
    """Its files may be gone: its tasks run on the current version rather than never."""
    predictor.stand_by(process(DIGITS[2]))
    predictor.promote()
    current.stop()
    current.fails = "the file is gone"
    assert predictor.start(never)
    assert ran_on(predictor, DIGITS[1]) == DIGITS[2]


def test_a_current_process_that_does_not_come_up_is_said_so() -> None:
    predictor = SwitchingPredictor(FakeProcess({"digits": DIGITS[1]}, fails="no"))
    with pytest.raises(ConfigurationError, match="no"):
        predictor.start(never)


def test_a_stop_ends_every_process(predictor: SwitchingPredictor, current: FakeProcess) -> None:
    second, third = process(DIGITS[2]), process(DIGITS[3])
    predictor.stand_by(second)
    predictor.promote()
    predictor.stand_by(third)
    predictor.stop()
    assert not any(one.is_running for one in (current, second, third))
    assert predictor.loaded == {}
