"""Intake: messages that arrive are leased, joined to held ones, or dropped."""

from __future__ import annotations

import pytest
from pipeline_rig import Inbox, MakeRig, Rig, assert_succeeded, message_of, queue_item, wait_until
from support.samples import as_sent

from inference.domain import ModelRef, Outcome, QueueMessage, TaskStatus
from inference.task_store.protocol import Commit
from inference.task_store.redis_store import RedisTaskStore


def finish_elsewhere(store: RedisTaskStore, task_id: str) -> None:
    store.lease("other-worker", [task_id])
    (attempt,) = store.start("other-worker", [task_id])
    assert attempt is not None
    store.commit("other-worker", [Commit(task_id, attempt, Outcome(TaskStatus.FAILED, error={"code": "x", "detail": "y"}))])


def test_a_task_that_no_store_knows_is_dropped(rig: Rig) -> None:
    inbox = Inbox(message_of(queue_item(1)))
    rig.pipeline.submit(inbox.delivery)
    rig.await_done([inbox])
    assert inbox.ends == {"task-1": "dropped"}
    assert rig.predictor.batches == []


def test_a_task_that_another_worker_holds_is_dropped(rig: Rig, store: RedisTaskStore) -> None:
    task_id = rig.accept(1)
    store.lease("other-worker", [task_id])
    inbox = rig.deliver(task_id)
    rig.await_done([inbox])
    assert inbox.ends == {task_id: "dropped"}
    assert store.renew("other-worker", [task_id]) == [True]
    assert rig.predictor.batches == []


def test_a_task_that_has_ended_is_dropped(rig: Rig, store: RedisTaskStore) -> None:
    task_id = rig.accept(1)
    finish_elsewhere(store, task_id)
    inbox = rig.deliver(task_id)
    rig.await_done([inbox])
    assert inbox.ends == {task_id: "dropped"}
    assert inbox.started == 0
    assert rig.record(1).attempts == 1


def test_it_is_told_when_a_message_is_leased_joined_or_dropped(rig: Rig) -> None:
    rig.predictor.gate.clear()
    task_id = rig.accept(1)
    leased: list[str] = []

    def deliver(name: str, inbox: Inbox) -> Inbox:
        inbox.delivery.on_leased = lambda: leased.append(name)
        rig.pipeline.submit(inbox.delivery)
        wait_until(lambda: name in leased, f"{name} is leased")
        return inbox

    message = QueueMessage(rig.record(1).model, (rig.record(1).item,))
    first, again = deliver("first", Inbox(message)), deliver("again", Inbox(message))
    unknown = deliver("unknown", Inbox(message_of(queue_item(2))))
    assert task_id in rig.held.task_ids()
    rig.predictor.gate.set()
    rig.await_done([first, again, unknown])


def test_of_one_message_each_item_goes_its_own_way(rig: Rig, store: RedisTaskStore) -> None:
    task_ids = [rig.accept(number) for number in range(4)]
    finish_elsewhere(store, task_ids[1])
    store.lease("other-worker", [task_ids[2]])
    inbox = rig.deliver(*task_ids)
    rig.await_done([inbox])
    assert list(inbox.ends.values()).count("dropped") == 2
    assert (inbox.ends[task_ids[0]], inbox.ends[task_ids[3]]) == ("committed", "committed")
    assert inbox.started == 1
    for number in (0, 3):
        assert_succeeded(rig.record(number), number)


def test_many_items_of_many_messages_are_all_leased_and_all_run(rig: Rig, store: RedisTaskStore) -> None:
    """More than the arena has slots: what waits for one is this worker's all the same."""
    rig.predictor.gate.clear()
    task_ids = [rig.accept(number) for number in range(320)]
    inboxes = [rig.deliver(*task_ids[start : start + 32]) for start in range(0, len(task_ids), 32)]
    wait_until(lambda: len(rig.held) == len(task_ids), "a lease for each")
    assert store.renew(rig.holder, task_ids) == [True] * len(task_ids)
    assert len(rig.ready_jobs) <= rig.arena.slots
    rig.predictor.gate.set()
    rig.await_done(inboxes)
    assert {end for inbox in inboxes for end in inbox.ends.values()} == {"committed"}
    assert sorted(rig.predictor.seen) == list(range(320))


def test_a_message_that_comes_again_while_its_task_runs_joins_it(rig: Rig) -> None:
    rig.predictor.gate.clear()
    task_id = rig.accept(7)
    first = rig.deliver(task_id)
    wait_until(lambda: rig.predictor.batches, "a running batch")
    again = rig.deliver(task_id)
    wait_until(lambda: len(rig.held._jobs[task_id].deliveries) == 2, "the second message")
    assert first.dones == again.dones == []
    rig.predictor.gate.set()
    rig.await_done([first, again])
    assert first.ends == again.ends == {task_id: "committed"}
    assert rig.predictor.batches == [[7]]
    assert rig.record(7).attempts == 1


def test_a_message_that_comes_twice_at_once_makes_one_job(make_rig: MakeRig) -> None:
    rig = make_rig()
    task_id = rig.accept(7)
    inboxes = [rig.deliver(task_id) for _ in range(3)]  # before the first thread runs
    rig.start()
    rig.await_done(inboxes)
    assert [inbox.ends for inbox in inboxes] == [{task_id: "committed"}] * 3
    assert rig.predictor.batches == [[7]]


def test_a_message_that_comes_again_after_the_end_is_dropped(rig: Rig) -> None:
    task_id = rig.accept(7)
    rig.await_done([rig.deliver(task_id)])
    again = rig.deliver(task_id)
    rig.await_done([again])
    assert again.ends == {task_id: "dropped"}
    assert rig.predictor.batches == [[7]]


def test_messages_wait_while_the_store_is_down(rig: Rig) -> None:
    task_ids = [rig.accept(number) for number in range(3)]
    first, *more = [message_of(rig.store.get(task_id).item) for task_id in task_ids]
    rig.store.take_down("lease")
    inboxes = [Inbox(first)]
    rig.pipeline.submit(inboxes[0].delivery)
    wait_until(lambda: rig.store.refused["lease"], "a refused lease")
    for message in more:
        inboxes.append(Inbox(message))
        rig.pipeline.submit(inboxes[-1].delivery)
    assert not any(inbox.dones for inbox in inboxes)
    rig.store.bring_up()
    rig.await_done(inboxes)
    for number in range(3):
        assert_succeeded(rig.record(number), number)


def test_what_waits_for_the_store_when_the_worker_stops_stays_with_the_broker(make_rig: MakeRig) -> None:
    rig = make_rig().start()
    rig.store.take_down("lease")
    (inbox,) = rig.send(1)
    wait_until(lambda: rig.store.refused["lease"], "a refused lease")
    assert rig.pipeline.stop(10)
    assert inbox.dones == []
    rig.store.bring_up()
    assert rig.record(1).status == "queued"


def test_a_message_without_items_is_no_predict_message() -> None:
    """It would never be done, and take one of the worker's places until that ends."""
    with pytest.raises(ValueError, match="item"):
        QueueMessage.from_kwargs(as_sent(QueueMessage(ModelRef("digits", "1", "sha256:0"), ())))


def test_an_item_named_twice_in_one_message_ends_it_once(rig: Rig) -> None:
    task_id = rig.accept(7)
    inbox = rig.deliver(task_id, task_id)
    rig.await_done([inbox])
    assert inbox.ends == {task_id: "committed"}
    assert rig.predictor.batches == [[7]]
