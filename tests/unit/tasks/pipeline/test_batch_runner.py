"""Batches: as many as wait while the predictor is busy, every size, each image with its own result."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest
from pipeline_rig import CLASSES, NO_OUTPUT, MakeRig, Rig, assert_failed, assert_succeeded, wait_until

from inference.domain import ModelRef
from inference.errors import ServiceUnavailable
from inference.models.predictor.protocol import Loaded
from inference.task_store import Commit

TIMINGS = {"queue_ms", "fetch_ms", "decode_ms", "batch_wait_ms", "predict_ms"}


def run_while_busy(rig: Rig, waiting: int) -> None:
    """Image 0 occupies the predictor until `waiting` others are decoded."""
    rig.predictor.gate.clear()
    first = rig.send(0)
    wait_until(lambda: rig.predictor.batches, "a running batch")
    others = rig.send(*range(1, waiting + 1))
    rig.await_decoded(waiting)
    rig.predictor.gate.set()
    rig.await_done([*first, *others])


@pytest.mark.parametrize(("waiting", "sizes"), [(1, [1, 1]), (3, [1, 3]), (4, [1, 4]), (7, [1, 4, 3]), (9, [1, 4, 4, 1])])
def test_while_the_predictor_is_busy_the_rest_becomes_one_batch(rig: Rig, waiting: int, sizes: list[int]) -> None:
    run_while_busy(rig, waiting)
    assert [len(batch) for batch in rig.predictor.batches] == sizes
    assert sorted(rig.predictor.seen) == list(range(waiting + 1))
    for number in range(waiting + 1):
        assert_succeeded(rig.record(number), number)


def test_an_idle_predictor_runs_a_single_image_at_once(rig: Rig) -> None:
    for number in range(3):
        rig.await_done(rig.send(number))
    assert rig.predictor.batches == [[0], [1], [2]]


@pytest.mark.parametrize("max_batch_size", [1, 3, 8])
def test_batches_are_never_larger_than_allowed(make_rig: MakeRig, max_batch_size: int) -> None:
    rig = make_rig(max_batch_size=max_batch_size, slots=20).start()
    run_while_busy(rig, 11)
    assert max(len(batch) for batch in rig.predictor.batches) == max_batch_size


def test_a_record_says_how_its_task_ran(rig: Rig) -> None:
    run_while_busy(rig, 3)
    record = rig.record(2)
    assert record.attempts == 1
    assert record.deaths == 0
    assert record.created_at_ms <= record.started_at_ms <= record.finished_at_ms
    outcome = record.outcome
    assert outcome is not None
    assert outcome.batch_size == 3
    assert outcome.worker == rig.holder
    assert set(outcome.timings) == TIMINGS
    assert all(value >= 0 for value in outcome.timings.values()), outcome.timings
    assert outcome.timings["predict_ms"] == 1.5
    assert record.started_at_ms - 50 <= outcome.predicted_at_ms <= record.finished_at_ms + 50
    assert outcome.result is not None
    assert outcome.result.label == "2"
    assert outcome.result.confidence_level == np.float32(0.91)


def test_a_message_is_told_of_its_start_before_its_end(rig: Rig) -> None:
    rig.predictor.gate.clear()
    (inbox,) = rig.send(1)
    wait_until(lambda: rig.predictor.batches, "a running batch")
    assert inbox.started == 1
    assert inbox.dones == []
    assert rig.record(1).status == "running"
    rig.predictor.gate.set()
    rig.await_done([inbox])
    assert inbox.started == 1


def test_the_outcome_in_the_message_is_the_records(rig: Rig) -> None:
    (inbox,) = rig.send(4)
    rig.await_done([inbox])
    (end,) = inbox.dones[0].values()
    assert end.outcome is not None
    assert end.outcome.result is not None
    recorded = rig.record(4).outcome
    assert recorded is not None
    assert recorded.result is not None
    np.testing.assert_array_equal(end.outcome.result.prediction, recorded.result.prediction)


def test_of_a_batch_that_raises_only_the_bad_image_fails(rig: Rig) -> None:
    rig.predictor.raises_on = {2}
    run_while_busy(rig, 4)
    assert rig.predictor.batches == [[0], *rig.predictor.batches[1:2], *([n] for n in rig.predictor.batches[1])]
    assert sorted(rig.predictor.batches[1]) == [1, 2, 3, 4]
    assert_failed(rig.record(2), "prediction_failed")
    for number in (1, 3, 4):
        assert_succeeded(rig.record(number), number)
        assert rig.record(number).attempts == 2  # starts of predict
    assert rig.predictor.starts == 0


def test_a_single_image_that_raises_fails_without_a_second_try(rig: Rig) -> None:
    rig.predictor.raises_on = {2}
    rig.await_done(rig.send(2))
    assert rig.predictor.batches == [[2]]
    assert_failed(rig.record(2), "prediction_failed")
    assert rig.record(2).attempts == 1


def test_a_batch_that_goes_on_after_a_failed_one_is_right(rig: Rig) -> None:
    rig.predictor.raises_on = {1}
    run_while_busy(rig, 2)
    rig.predictor.raises_on = set()
    rig.await_done(rig.send(8, 9))
    for number in (2, 8, 9):
        assert_succeeded(rig.record(number), number)


@pytest.mark.parametrize("rows", [-1, +1])
def test_another_number_of_predictions_than_images_fails_them_all(rig: Rig, rows: int) -> None:
    rig.predictor.answer = lambda count: np.full((count + rows, CLASSES), 0.1, np.float32)
    run_while_busy(rig, 3)
    for number in range(4):
        assert_failed(rig.record(number), "prediction_failed")
    error = rig.record(0).outcome.error
    assert error["detail"] == f"the model returned {1 + rows} predictions for a batch of 1"


def test_no_prediction_at_all_fails_the_task(rig: Rig) -> None:
    rig.predictor.answer = lambda _: NO_OUTPUT
    rig.await_done(rig.send(1))
    assert_failed(rig.record(1), "prediction_failed")


def test_too_few_predictions_for_a_batch_are_tried_one_by_one(rig: Rig) -> None:
    rig.predictor.answer = lambda _: np.full((1, CLASSES), 0.1, np.float32)
    run_while_busy(rig, 3)
    assert [len(batch) for batch in rig.predictor.batches] == [1, 3, 1, 1, 1]
    assert set(rig.statuses(range(4)).values()) == {"succeeded"}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (np.nan, "not finite"),
        (np.inf, "not finite"),
        (-np.inf, "not finite"),
        (70.0, "values from 0.1 to 70 that sum to 70.9"),
        (-0.5, "values from -0.5 to 0.1 that sum to 0.4"),
        (0.2, "values from 0.1 to 0.2 that sum to 1.1"),
    ],
)
def test_a_prediction_that_is_no_probabilities_fails_alone(rig: Rig, value: float, says: str) -> None:
    def answer(count: int) -> np.ndarray:
        values = np.full((count, CLASSES), 0.1, np.float32)
        if count == 3:
            values[1, 9] = value
        return values

    rig.predictor.answer = answer
    run_while_busy(rig, 3)
    bad = rig.predictor.batches[1][1]
    assert_failed(rig.record(bad), "prediction_failed")
    assert says in rig.record(bad).outcome.error["detail"]
    assert [len(batch) for batch in rig.predictor.batches] == [1, 3]
    assert list(rig.statuses({1, 2, 3} - {bad}).values()) == ["succeeded", "succeeded"]


def test_outcomes_are_committed_while_the_next_batch_runs(rig: Rig) -> None:
    rig.predictor.gate.clear()
    first = rig.send(0)
    wait_until(lambda: rig.predictor.batches, "a running batch")
    second = rig.send(1)
    rig.predictor.hold(2)
    wait_until(lambda: len(rig.predictor.batches) == 2, "the second batch")
    rig.await_done(first)
    assert_succeeded(rig.record(0), 0)
    assert second[0].dones == []
    rig.predictor.gate.set()
    rig.await_done(second)


def test_outcomes_wait_while_the_store_takes_none(rig: Rig) -> None:
    rig.store.take_down("commit")
    first = rig.send(0)
    wait_until(lambda: rig.store.refused["commit"], "a refused commit")
    later = rig.send(1, 2)
    wait_until(lambda: len(rig.predictor.seen) >= 2, "the predictor, which starts what has nothing to commit with it")
    assert not any(inbox.dones for inbox in [*first, *later])
    rig.store.bring_up()
    rig.await_done([*first, *later])
    for number in range(3):
        assert_succeeded(rig.record(number), number)


def test_what_ends_is_committed_with_the_start_of_the_next_batch(rig: Rig) -> None:
    run_while_busy(rig, 5)
    calls = [name for name in rig.store.calls if name in {"commit", "start", "commit_and_start"}]
    assert calls == ["start", "commit_and_start", "commit_and_start", "commit"]


def test_a_commit_and_start_that_is_refused_is_tried_again(rig: Rig) -> None:
    """Neither is lost: not what ended, and not what was to start."""
    rig.store.before["commit"] = lambda: rig.store.take_down("start")
    rig.predictor.gate.clear()
    first = rig.send(0)
    wait_until(lambda: rig.predictor.batches, "a running batch")
    later = rig.send(1, 2)
    rig.await_decoded(2)
    rig.predictor.gate.set()
    wait_until(lambda: rig.store.refused["start"], "a refused start")
    rig.store.before.clear()
    rig.store.bring_up()
    rig.await_done([*first, *later])
    for number in range(3):
        assert_succeeded(rig.record(number), number)


def test_what_a_lost_answer_was_about_is_looked_up(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit was done, and the start was not: the second try finds the one ended and starts the other."""
    store, tries = rig.store._store, []

    def commit_then_fail(holder: str, commits: Sequence[Commit], task_ids: Sequence[str]) -> object:
        tries.append(commits)
        if len(tries) == 1:
            assert store.commit(holder, commits) == [True]
            raise ServiceUnavailable("the connection broke")
        return store.commit(holder, commits), store.start(holder, task_ids)

    monkeypatch.setattr(store, "commit_and_start", commit_then_fail)
    rig.predictor.gate.clear()
    (first,) = rig.send(0)
    wait_until(lambda: rig.predictor.batches, "a running batch")
    (later,) = rig.send(1)
    rig.await_decoded(1)
    rig.predictor.gate.set()
    rig.await_done([first, later])
    assert first.ends == {rig.task_id(0): "dropped"}
    assert later.ends == {rig.task_id(1): "committed"}
    for number in range(2):
        assert_succeeded(rig.record(number), number)


def test_what_has_ended_does_not_wait_for_a_batch_that_fills(make_rig: MakeRig) -> None:
    rig = make_rig(max_batch_wait_ms=5000.0).start()
    rig.predictor.gate.clear()
    first = rig.send(0, 1, 2, 3)
    wait_until(lambda: rig.predictor.batches, "a full batch, which runs at once")
    (later,) = rig.send(4)
    rig.await_decoded(1)
    rig.predictor.gate.set()
    rig.await_done(first)
    assert not later.started
    rig.send(5, 6, 7)
    rig.await_done([later])


def test_starts_wait_while_the_store_is_down(rig: Rig) -> None:
    rig.store.take_down("start")
    inboxes = rig.send(0, 1, 2)
    wait_until(lambda: rig.store.refused["start"], "a refused start")
    assert rig.predictor.batches == []
    rig.store.bring_up()
    rig.await_done(inboxes)
    for number in range(3):
        assert_succeeded(rig.record(number), number)


def test_a_task_runs_on_the_version_that_is_served_when_its_batch_starts(rig: Rig) -> None:
    first, second = rig.predictor.references["digits"], ModelRef("digits", "2", "sha256:2")
    rig.predictor.gate.clear()
    inboxes = rig.send(0)
    wait_until(lambda: rig.predictor.batches, "a running batch")
    inboxes += rig.send(1, 2)
    rig.predictor.references = {"digits": second}
    inboxes += rig.send(3, version="2")
    rig.await_decoded(3)
    rig.predictor.gate.set()
    rig.await_done(inboxes)
    assert [sorted(batch) for batch in rig.predictor.batches] == [[0], [1, 2, 3]]
    records = [rig.record(number) for number in range(4)]
    assert [record.ran_on for record in records] == [first, second, second, second]
    assert [record.model.version for record in records] == ["1", "1", "1", "2"]
    assert rig.store.get_queue_load(rig.spec.queue).model == second


def test_what_can_end_in_time_no_more_costs_the_predictor_nothing(rig: Rig) -> None:
    rig.predictor.gate.clear()
    first = rig.send(0)
    wait_until(lambda: rig.predictor.batches, "a running batch")
    others = [*rig.send(1, 2), *rig.send(3, deadline_s=0.1)]
    rig.await_decoded(3)
    time.sleep(0.15)
    rig.predictor.gate.set()
    rig.await_done([*first, *others])
    assert sorted(rig.predictor.seen) == [0, 1, 2]
    assert rig.record(3).status == "expired"
    assert rig.every_slot_is_free()


def test_a_task_ends_before_its_deadline_where_a_batch_takes_longer(rig: Rig) -> None:
    model = ModelRef(rig.spec.name, rig.spec.version, "sha256:0")
    for _ in range(2):
        rig.pipeline._batch_runner._times.note(model, 1, 30.0)
    rig.await_done(rig.send(1, deadline_s=20.0))
    record = rig.record(1)
    assert record.status == "expired"
    assert record.finished_at_ms < record.deadline_at_ms - 10_000
    assert record.outcome is not None
    assert record.outcome.error is not None
    assert record.outcome.error["code"] == "deadline_exceeded"
    assert "the model takes 30.000 s" in record.outcome.error["detail"]
    assert rig.predictor.batches == []
    rig.await_done(rig.send(2, deadline_s=60.0))
    assert_succeeded(rig.record(2), 2)


def test_what_a_batch_waited_for_another_model_ends_no_task(rig: Rig) -> None:
    """Both models of a device share a process: the batch waits for the other's call, and takes 1.5 ms then."""
    for number in range(2):
        rig.predictor.gate.clear()
        inboxes = rig.send(number)
        wait_until(lambda number=number: len(rig.predictor.batches) > number, "a batch that waits")
        time.sleep(0.6)
        rig.predictor.gate.set()
        rig.await_done(inboxes)
    rig.await_done(rig.send(2, deadline_s=0.5))
    assert_succeeded(rig.record(2), 2)


def test_a_worker_that_was_slow_for_a_moment_goes_by_the_warm_up(rig: Rig) -> None:
    model = ModelRef(rig.spec.name, rig.spec.version, "sha256:0")
    rig.predictor.references = {model.name: model}
    rig.predictor.loaded = {model.name: Loaded(model.name, 10, predict_ms=1.5)}
    for _ in range(2):
        rig.pipeline._batch_runner._times.note(model, 1, 30.0)
    rig.await_done(rig.send(1, deadline_s=20.0))
    assert_succeeded(rig.record(1), 1)


def test_a_task_that_comes_after_its_deadline_is_not_even_fetched(rig: Rig) -> None:
    task_id = rig.accept(1, deadline_s=0.05)
    time.sleep(0.1)
    rig.await_done([rig.deliver(task_id)])
    assert rig.record(1).status == "expired"
    assert "get" not in rig.objects.calls
