"""The predictor process dies: neighbours pay nothing but a second run, and the killer ends as a dead letter."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis
from pipeline_rig import (
    FakePredictor,
    Inbox,
    MakeRig,
    Rig,
    assert_failed,
    assert_succeeded,
    image_of,
    wait_until,
)

from inference.errors import ConfigurationError
from inference.lifecycle.dead_letters import move_to_dead_letters
from inference.models.predictor.arena import SlotArena
from inference.models.spec import ModelSpec
from inference.storage.local import LocalObjectStore
from inference.storage.protocol import dead_letter_key
from inference.task_store.redis_store import RedisTaskStore

ALWAYS = 1000


def crash_in_a_batch_of_four(rig: Rig) -> None:
    """Image 0 runs; 1 to 4 become one batch."""
    rig.predictor.gate.clear()
    first = rig.send(0)
    wait_until(lambda: rig.predictor.batches, "a running batch")
    batch = rig.send(1, 2, 3, 4)
    rig.await_decoded(4)
    rig.predictor.gate.set()
    rig.await_done([*first, *batch])


def test_after_one_crash_everything_succeeds_at_the_second_try(rig: Rig) -> None:
    rig.predictor.crashes_on[2] = 1
    crash_in_a_batch_of_four(rig)
    assert [sorted(batch) for batch in rig.predictor.batches[:2]] == [[0], [1, 2, 3, 4]]
    assert [len(batch) for batch in rig.predictor.batches[2:]] == [1, 1, 1, 1]
    for number in range(1, 5):
        record = rig.record(number)
        assert_succeeded(record, number)
        assert (record.attempts, record.deaths) == (2, 1)
        assert record.outcome is not None
        assert record.outcome.batch_size == 1
    assert rig.predictor.starts == 1


def test_a_killer_is_a_dead_letter_and_its_neighbours_succeed(rig: Rig, store: RedisTaskStore, objects: LocalObjectStore) -> None:
    rig.predictor.crashes_on[2] = ALWAYS
    crash_in_a_batch_of_four(rig)
    for number in (1, 3, 4):
        assert_succeeded(rig.record(number), number)
        assert rig.record(number).attempts == 2
    record = rig.record(2)
    assert_failed(record, "predictor_died")
    assert (record.attempts, record.deaths) == (3, 3)
    assert store.list_dead_letters(10) == [record.task_id]
    assert objects.get(dead_letter_key(record.task_id)) == image_of(2)
    assert rig.predictor.batches.count([2]) == 2
    assert rig.predictor.starts == 3


def test_a_dead_letter_ends_its_message_with_the_error(rig: Rig) -> None:
    rig.predictor.crashes_on[2] = ALWAYS
    (inbox,) = rig.send(2)
    rig.await_done([inbox])
    assert inbox.started == 3
    assert [retry.attempts for retry in inbox.retries] == [1, 2]
    (end,) = inbox.dones[0].values()
    assert end.ending == "committed"
    assert end.outcome is not None
    assert end.outcome.error is not None
    assert end.outcome.error["code"] == "predictor_died"


@pytest.mark.parametrize("max_attempts", [1, 2, 5])
def test_attempts_are_as_many_as_the_policy_allows(make_rig: MakeRig, max_attempts: int) -> None:
    rig = make_rig(max_attempts=max_attempts).start()
    rig.predictor.crashes_on[1] = ALWAYS
    rig.await_done(rig.send(1))
    assert rig.predictor.batches == [[1]] * max_attempts
    assert rig.record(1).deaths == max_attempts


def test_a_killers_input_that_is_gone_is_said_so(rig: Rig, objects: LocalObjectStore) -> None:
    rig.predictor.crashes_on[1] = ALWAYS
    task_id = rig.accept(1)
    rig.store.before["note_death"] = lambda: objects.delete(rig.store.get(task_id).item.object_key)
    rig.await_done([rig.deliver(task_id)])
    record = rig.record(1)
    assert record.status == "failed"
    assert record.outcome is not None
    assert record.outcome.error is not None
    assert record.outcome.error["code"] == "upload_lost"  # it was fetched again for its second run


def test_several_killers_in_one_batch_are_told_from_the_rest(rig: Rig, store: RedisTaskStore) -> None:
    rig.predictor.crashes_on.update({1: ALWAYS, 4: ALWAYS})
    crash_in_a_batch_of_four(rig)
    for number in (2, 3):
        assert_succeeded(rig.record(number), number)
    for number in (1, 4):
        assert_failed(rig.record(number), "predictor_died")
    assert set(store.list_dead_letters(10)) == {rig.task_id(1), rig.task_id(4)}


def test_batches_and_single_runs_take_turns_after_a_crash(rig: Rig) -> None:
    rig.predictor.crashes_on[2] = 1
    rig.predictor.gate.clear()
    first = rig.send(0)
    wait_until(lambda: rig.predictor.batches, "a running batch")
    batch = rig.send(1, 2, 3, 4)
    rig.await_decoded(4)
    later = rig.send(5, 6, 7, 8)
    rig.await_decoded(8)
    rig.predictor.gate.set()
    rig.await_done([*first, *batch, *later])
    sizes = [len(one) for one in rig.predictor.batches]
    assert sizes[:2] == [1, 4]
    assert sizes.index(4, 2) <= 3  # not behind all that run alone
    for number in range(9):
        assert_succeeded(rig.record(number), number)


def test_a_single_run_finds_a_slot_though_decoded_images_fill_the_arena(make_rig: MakeRig) -> None:
    """While the process starts again the fetchers go on; only the predictor frees slots, and it is the one that waits."""
    rig = make_rig(slots=4, max_batch_size=2).start()
    rig.predictor.crashes_on[0] = 1
    rig.predictor.gate.clear()
    killer = rig.send(0)
    wait_until(lambda: rig.predictor.batches, "a running batch")
    others = rig.send(*range(1, 9))
    wait_until(lambda: rig.free_slots() == [], "an arena that is full")
    rig.store.before["note_death"] = lambda: wait_until(lambda: rig.free_slots() == [], "the killer's slot in other hands")
    rig.predictor.gate.set()
    rig.await_done([*killer, *others])
    for number in range(9):
        assert_succeeded(rig.record(number), number)


def test_a_task_that_was_in_a_dead_process_is_started_before_it_is_fetched(rig: Rig, store: RedisTaskStore) -> None:
    """Whatever kills a process while it decodes is counted as an attempt from the second time on."""
    task_id = rig.accept(1)
    store.lease("dead-worker", [task_id])
    store.start("dead-worker", [task_id])
    store.note_death("dead-worker", [task_id])
    store.release("dead-worker", [task_id])
    attempts: list[int] = []
    rig.objects.before["get"] = lambda: attempts.append(store.get(task_id).attempts)
    rig.await_done([rig.deliver(task_id)])
    assert attempts == [2]
    assert_succeeded(rig.record(1), 1)


def test_a_bad_image_that_runs_alone_fails(rig: Rig, store: RedisTaskStore) -> None:
    task_id = rig.accept(1, data=b"no image")
    store.lease("dead-worker", [task_id])
    store.start("dead-worker", [task_id])
    store.note_death("dead-worker", [task_id])
    store.release("dead-worker", [task_id])
    rig.await_done([rig.deliver(task_id)])
    assert_failed(rig.record(1), "invalid_image")


def test_an_image_that_raises_in_its_single_run_fails(rig: Rig) -> None:
    rig.predictor.crashes_on[2] = 1
    rig.predictor.raises_on = {2}
    crash_in_a_batch_of_four(rig)
    assert_failed(rig.record(2), "prediction_failed")
    for number in (1, 3, 4):
        assert_succeeded(rig.record(number), number)


def test_a_task_canceled_while_its_process_died_is_dropped(rig: Rig) -> None:
    rig.predictor.crashes_on[2] = 1
    rig.predictor.gate.clear()
    first = rig.send(0)
    wait_until(lambda: rig.predictor.batches, "a running batch")
    batch = rig.send(1, 2)
    rig.await_decoded(2)
    rig.store.before["note_death"] = lambda: rig.store.cancel(rig.task_id(1))
    rig.predictor.gate.set()
    rig.await_done([*first, *batch])
    assert batch[0].ends == {rig.task_id(1): "dropped"}
    assert rig.record(1).status == "canceled"
    assert_succeeded(rig.record(2), 2)


def test_deaths_are_noted_when_the_store_comes_back(rig: Rig) -> None:
    rig.predictor.crashes_on[1] = 1
    rig.store.take_down("note_death")
    inboxes = rig.send(1)
    wait_until(lambda: rig.store.refused["note_death"], "a refused note")
    rig.store.bring_up()
    rig.await_done(inboxes)
    assert_succeeded(rig.record(1), 1)
    assert rig.record(1).deaths == 1


def test_a_killer_is_kept_though_the_object_store_was_down(
    rig: Rig, stores: tuple[RedisTaskStore, LocalObjectStore], redis_client: redis.Redis, key_prefix: str
) -> None:
    """The worker makes it a dead letter when the store is back, or the sweeper does when its lease has run out."""
    store, objects = stores
    rig.predictor.crashes_on[1] = ALWAYS
    rig.objects.take_down("copy")
    inboxes = rig.send(1)
    task_id = rig.task_id(1)
    wait_until(lambda: rig.objects.refused["copy"], "a refused copy")
    assert rig.record(1).status == "running"
    rig.objects.bring_up()
    redis_client.zadd(f"{key_prefix}:leases", {task_id: 1})
    for exhausted in store.reap("sweeper", max_attempts=3, limit=10).exhausted:
        move_to_dead_letters(store, objects, "sweeper", store.get(exhausted))
    rig.await_done(inboxes)
    assert_failed(rig.record(1), "predictor_died")
    assert store.list_dead_letters(10) == [task_id]
    assert objects.get(dead_letter_key(task_id)) == image_of(1)


def test_other_tasks_do_not_wait_for_a_dead_letter(rig: Rig) -> None:
    """Only the killer's copy cannot be written; what else the object store does is no matter of theirs."""
    rig.predictor.crashes_on[2] = ALWAYS
    rig.objects.take_down("copy")
    killer = rig.send(2)
    wait_until(lambda: rig.objects.refused["copy"], "a refused copy")
    rig.await_done(rig.send(5, 6))
    rig.objects.bring_up()
    rig.await_done(killer)


def test_a_store_that_goes_down_right_after_a_dead_letter_does_not_end_the_worker(rig: Rig) -> None:
    rig.predictor.crashes_on[1] = ALWAYS

    rig.objects.before["copy"] = lambda: rig.store.before.update(commit=lambda: rig.store.take_down("get"))
    inboxes = rig.send(1)
    wait_until(lambda: rig.store.refused["get"], "a refused read")
    wait_until(lambda: rig.faults or inboxes[0].dones or rig.store.refused["get"] > 1, "what the worker does next")
    assert rig.faults == []
    rig.store.before.clear()
    rig.store.bring_up()
    rig.await_done(inboxes)
    assert_failed(rig.record(1), "predictor_died")


def test_a_process_that_does_not_come_up_is_started_again(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    class Reluctant(FakePredictor):
        def start(self, should_stop: Callable[[], bool]) -> bool:
            super().start(should_stop)
            if self.starts < 2:
                self._running = False
                raise ConfigurationError("the model cannot be loaded: no memory")
            return True

    reluctant = Reluctant({rig.spec.name: rig.arena})
    rig.pipeline._batch_runner._predictor = rig.predictor = reluctant
    reluctant.crashes_on[1] = 1
    rig.await_done(rig.send(1))
    assert_succeeded(rig.record(1), 1)
    assert reluctant.starts == 2
    assert "does not start again" in caplog.text


class TestTwoModels:
    """One predictor process for both: what one model's image does to it is not the other's fault."""

    @pytest.fixture
    def rigs(self, make_rig: MakeRig, make_arena: Callable[[int], SlotArena], digits: ModelSpec) -> tuple[Rig, Rig]:
        arenas = {name: make_arena(10) for name in ("digits", "others")}
        predictor = FakePredictor(arenas)
        first = make_rig(arena=arenas["digits"], predictor=predictor)
        others = digits.model_copy(update={"name": "others"})
        second = make_rig(spec=others, arena=arenas["others"], predictor=predictor)
        return first.start(), second.start()

    def test_a_batch_that_finds_the_process_down_is_not_counted_as_a_death(self, rigs: tuple[Rig, Rig]) -> None:
        killers, innocents = rigs
        killers.predictor.crashes_on[1] = 1
        done: list[Inbox] = []

        def another_models_batch_comes() -> None:
            if not done:
                done.extend(innocents.send(5))
                wait_until(lambda: innocents.predictor.refused, "a batch that finds the process down")

        killers.store.before["note_death"] = another_models_batch_comes
        inboxes = killers.send(1)
        killers.await_done(inboxes)
        innocents.await_done(done)
        assert_succeeded(killers.record(1), 1)
        assert_succeeded(innocents.record(5), 5)
        assert innocents.record(5).deaths == 0
