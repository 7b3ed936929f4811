"""Tasks that end while the worker has them: canceled, revoked, expired. They are dropped, or their commit is refused."""

from __future__ import annotations

import pytest
import redis
from pipeline_rig import Rig, assert_succeeded, wait_until

from inference.task_store.redis_store import RedisTaskStore


@pytest.fixture
def busy(rig: Rig) -> Rig:
    """Image 0 runs until the gate is opened."""
    rig.predictor.gate.clear()
    rig.send(0)
    wait_until(lambda: rig.predictor.batches, "a running batch")
    return rig


def test_a_task_that_is_canceled_while_it_waits_is_dropped_from_its_batch(busy: Rig) -> None:
    inboxes = busy.send(1, 2, 3)
    busy.await_decoded(3)
    busy.store.cancel(busy.task_id(2))
    busy.predictor.gate.set()
    busy.await_done(inboxes)
    assert [set(inbox.ends.values()) for inbox in inboxes] == [{"committed"}, {"dropped"}, {"committed"}]
    assert 2 not in busy.predictor.seen
    assert busy.record(2).status == "canceled"
    assert inboxes[1].started == 0
    for number in (1, 3):
        assert_succeeded(busy.record(number), number)


def test_a_batch_of_canceled_tasks_alone_is_not_run(busy: Rig) -> None:
    inboxes = busy.send(1, 2)
    busy.await_decoded(2)
    for number in (1, 2):
        busy.store.cancel(busy.task_id(number))
    busy.predictor.gate.set()
    busy.await_done(inboxes)
    assert busy.predictor.batches == [[0]]


def test_the_result_of_a_task_that_is_canceled_while_it_runs_is_discarded(busy: Rig) -> None:
    busy.store.cancel(busy.task_id(0))
    again = busy.send(1)
    busy.predictor.gate.set()
    busy.await_done(again)
    record = busy.record(0)
    assert record.status == "canceled"
    assert record.outcome is not None
    assert record.outcome.result is None


def test_a_running_task_that_is_canceled_ends_its_message(rig: Rig) -> None:
    rig.predictor.gate.clear()
    (inbox,) = rig.send(1)
    wait_until(lambda: rig.predictor.batches, "a running batch")
    rig.store.cancel(rig.task_id(1))
    rig.predictor.gate.set()
    rig.await_done([inbox])
    assert inbox.ends == {rig.task_id(1): "dropped"}


def test_a_task_canceled_in_a_batch_that_fails_is_not_run_again(rig: Rig) -> None:
    rig.predictor.raises_on = {3}
    rig.predictor.gate.clear()
    first = rig.send(0)
    wait_until(lambda: rig.predictor.batches, "a running batch")
    inboxes = rig.send(1, 2, 3)
    rig.await_decoded(3)

    def cancel_after_the_failed_batch() -> None:
        if len(rig.predictor.batches) == 2 and rig.record(2).status == "running":
            rig.store.cancel(rig.task_id(2))

    rig.store.before["start"] = cancel_after_the_failed_batch
    rig.predictor.gate.set()
    rig.await_done([*first, *inboxes])
    assert rig.record(2).status == "canceled"
    assert [2] not in rig.predictor.batches
    assert_succeeded(rig.record(1), 1)


def test_a_revoked_message_is_canceled_and_not_run(busy: Rig) -> None:
    inboxes = busy.send(1, 2)
    busy.await_decoded(2)
    inboxes[0].revoked = True
    busy.predictor.gate.set()
    busy.await_done(inboxes)
    assert inboxes[0].ends == {busy.task_id(1): "dropped"}
    assert busy.record(1).status == "canceled"
    assert 1 not in busy.predictor.seen
    assert_succeeded(busy.record(2), 2)


def test_a_revoked_message_whose_task_has_ended_is_dropped(busy: Rig) -> None:
    (inbox,) = busy.send(1)
    busy.await_decoded(1)
    busy.store.cancel(busy.task_id(1))
    inbox.revoked = True
    busy.predictor.gate.set()
    busy.await_done([inbox])
    assert inbox.ends == {busy.task_id(1): "dropped"}


def test_a_task_runs_while_one_of_its_messages_is_not_revoked(busy: Rig) -> None:
    (inbox,) = busy.send(1)
    busy.await_decoded(1)
    again = busy.deliver(busy.task_id(1))
    wait_until(lambda: len(busy.held._jobs[busy.task_id(1)].deliveries) == 2, "the second message")
    inbox.revoked = True
    busy.predictor.gate.set()
    busy.await_done([inbox, again])
    assert_succeeded(busy.record(1), 1)


def test_a_task_whose_deadline_has_passed_is_not_run(busy: Rig, store: RedisTaskStore) -> None:
    late = busy.send(1, deadline_s=1)  # time enough to be decoded first
    on_time = busy.send(2)
    busy.await_decoded(2)
    deadline_at_ms = busy.record(1).deadline_at_ms
    wait_until(lambda: _now_ms(store) > deadline_at_ms, "the deadline")
    busy.predictor.gate.set()
    busy.await_done([*late, *on_time])
    assert late[0].ends == {busy.task_id(1): "committed"}
    assert 1 not in busy.predictor.seen
    assert_succeeded(busy.record(2), 2)
    assert busy.record(1).status == "expired"
    assert store.expire_due(100) == []


def test_the_result_of_a_task_that_expires_while_it_runs_is_discarded(rig: Rig, store: RedisTaskStore) -> None:
    rig.predictor.gate.clear()
    (inbox,) = rig.send(1, deadline_s=0.5)
    wait_until(lambda: rig.predictor.batches, "a running batch")
    wait_until(lambda: store.expire_due(100) == [rig.task_id(1)], "the deadline")
    rig.predictor.gate.set()
    rig.await_done([inbox])
    assert inbox.ends == {rig.task_id(1): "dropped"}
    assert rig.record(1).status == "expired"


def test_a_task_that_another_worker_took_over_meanwhile_is_dropped(
    busy: Rig, store: RedisTaskStore, redis_client: redis.Redis, key_prefix: str
) -> None:
    """A pause longer than the lease: the lease has run out, and another worker has it."""
    (inbox,) = busy.send(1)
    busy.await_decoded(1)
    task_id = busy.task_id(1)
    redis_client.zadd(f"{key_prefix}:leases", {task_id: 1})
    assert store.reap("sweeper", max_attempts=3, limit=10).requeue == (task_id,)
    assert store.lease("other-worker", [task_id]).leases[0].state == "leased"
    busy.predictor.gate.set()
    busy.await_done([inbox])
    assert inbox.ends == {task_id: "dropped"}
    assert 1 not in busy.predictor.seen
    assert store.renew("other-worker", [task_id]) == [True]


def _now_ms(store: RedisTaskStore) -> int:
    return store.lease("nobody", []).now_ms
