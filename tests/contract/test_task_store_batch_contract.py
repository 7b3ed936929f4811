"""Contract of task stores for many tasks that are accepted together."""

from __future__ import annotations

from typing import Any

import pytest
from store_worlds import IDEMPOTENCY_TTL_S, RESULT_TTL_S, StoreWorld, accept, commit_one, lease_one, position, running, status
from support.samples import QUEUE, a_batch, a_request
from support.task_pages import ids_of_request

from inference.domain import BatchRecord, BatchRequest, TaskStatus
from inference.errors import BatchNotFound, IdempotencyConflict, InvalidImage, Overloaded
from inference.task_store import AcceptedBatch, Enqueue, KnownKey, LeaseState, TaskStore

REFUSED = InvalidImage("no image", field="image").to_dict()


def accept_batch(store: TaskStore, count: int = 3, *, max_queue_depth: int = 0, **changes: Any) -> BatchRequest:
    batch = a_batch(*(a_request(**changes) for _ in range(count)))
    assert store.accept_batch(batch, enqueue=[], max_queue_depth=max_queue_depth).created
    return batch


def ids_of(batch: BatchRequest) -> list[str]:
    return [task.task_id for task in batch.tasks]


def end(store: TaskStore, task_id: str) -> None:
    store.lease("w", [task_id])
    store.start("w", [task_id])
    assert commit_one(store, "w", task_id, attempt=1)


class TestAccept:
    def test_the_batch_says_what_came_in_order(self, store: TaskStore) -> None:
        batch = a_batch(a_request(), REFUSED, a_request())
        accepted = store.accept_batch(batch, enqueue=[], max_queue_depth=0)
        first, second = ids_of(batch)
        assert accepted == AcceptedBatch(batch.batch_id, created=True)
        assert store.get_batch(batch.batch_id) == BatchRecord(batch.batch_id, (first, REFUSED, second))
        assert store.get_batch(batch.batch_id).task_ids == [first, second]

    def test_each_task_is_one_of_its_own(self, store: TaskStore) -> None:
        requests = [a_request(request_id=f"r{number}", deadline_s=10 * number, sinks=("kafka",)) for number in (1, 2)]
        batch = a_batch(*requests)
        store.accept_batch(batch, enqueue=[], max_queue_depth=0)
        for request in requests:
            record = store.get(request.task_id)
            assert (record.batch_id, record.request_id) == (batch.batch_id, request.request_id)
            assert (record.item, record.model, record.status) == (request.item, request.model, TaskStatus.QUEUED)
            assert record.deadline_at_ms - record.created_at_ms == request.deadline_s * 1000
            assert ids_of_request(store, request.request_id) == [request.task_id]
        assert [position(store, task_id) for task_id in ids_of(batch)] == [0, 1]
        assert store.get(accept(store)).batch_id == ""

    def test_its_messages_are_pushed_in_the_same_step(self, world: StoreWorld, key_prefix: str) -> None:
        other = f"{key_prefix}-other"
        enqueue = [Enqueue(key_prefix, b"1"), Enqueue(other, b"2"), Enqueue(key_prefix, b"3")]
        world.store.accept_batch(a_batch(a_request(), a_request()), enqueue=enqueue, max_queue_depth=0)
        assert (world.pushed(key_prefix), world.pushed(other)) == ([b"1", b"3"], [b"2"])

    def test_the_same_batch_again_changes_nothing(self, world: StoreWorld, key_prefix: str) -> None:
        batch, enqueue = a_batch(a_request(), a_request()), [Enqueue(key_prefix, b"message")]
        first = world.store.accept_batch(batch, enqueue=enqueue, max_queue_depth=2)
        assert world.store.accept_batch(batch, enqueue=enqueue, max_queue_depth=2) == first
        assert world.pushed(key_prefix) == [b"message"]
        assert world.store.get_queue_stats(QUEUE).depth == 2

    def test_a_batch_without_tasks(self, world: StoreWorld) -> None:
        batch = a_batch(REFUSED, REFUSED)
        assert world.store.accept_batch(batch, enqueue=[], max_queue_depth=1).created
        assert world.store.get_batch(batch.batch_id).entries == (REFUSED, REFUSED)

    def test_a_batch_of_hundreds(self, store: TaskStore) -> None:
        batch = accept_batch(store, 500, max_queue_depth=500)
        assert store.get_queue_stats(QUEUE).depth == 500
        assert store.get_batch(batch.batch_id).task_ids == ids_of(batch)

    def test_a_worker_may_take_thousands_in_one_call(self, store: TaskStore) -> None:
        """Redis's Lua cannot pass that many arguments on to one command."""
        ids = ids_of(accept_batch(store, 4500))
        assert {lease.state for lease in store.lease("w", ids).leases} == {LeaseState.LEASED}
        assert store.renew("w", ids) == [True] * 4500
        assert store.start("w", ids) == [1] * 4500
        assert {lease.state for lease in store.lease("other", [ids[0], ids[-1]]).leases} == {LeaseState.HELD}

    def test_tasks_of_other_queues(self, store: TaskStore) -> None:
        batch = a_batch(a_request(), a_request(queue="predict.other"), a_request())
        store.accept_batch(batch, enqueue=[], max_queue_depth=2)
        assert [store.get_queue_stats(queue).depth for queue in (QUEUE, "predict.other")] == [2, 1]

    def test_an_unknown_batch_is_not_found(self, store: TaskStore) -> None:
        with pytest.raises(BatchNotFound) as caught:
            store.get_batch("nobody")
        assert caught.value.batch_id == "nobody"


class TestOverload:
    @pytest.mark.parametrize("waiting", [1, 2])
    def test_without_room_for_all_of_them_nothing_is_left(self, world: StoreWorld, key_prefix: str, waiting: int) -> None:
        store = world.store
        for _ in range(waiting):
            accept(store)
        batch = a_batch(a_request(queue="predict.other"), a_request(), a_request(), idempotency_key="key", fingerprint="content")
        with pytest.raises(Overloaded):
            store.accept_batch(batch, enqueue=[Enqueue(key_prefix, b"message")], max_queue_depth=2)
        assert store.get_many(ids_of(batch)) == [None] * 3
        assert [ids_of_request(store, task.request_id) for task in batch.tasks] == [[]] * 3
        assert [store.get_queue_stats(queue).depth for queue in (QUEUE, "predict.other")] == [waiting, 0]
        assert world.pushed(key_prefix) == []
        assert store.find_idempotent("key") is None
        with pytest.raises(BatchNotFound):
            store.get_batch(batch.batch_id)

    def test_with_room_for_just_as_many_it_is_accepted(self, store: TaskStore) -> None:
        accept(store)
        accept_batch(store, 3, max_queue_depth=4)


class TestIdempotency:
    def test_the_same_key_and_content_is_the_same_batch(self, world: StoreWorld, key_prefix: str) -> None:
        first, again = (a_batch(a_request(), idempotency_key="key", fingerprint="content") for _ in range(2))
        world.store.accept_batch(first, enqueue=[], max_queue_depth=1)
        accepted = world.store.accept_batch(again, enqueue=[Enqueue(key_prefix, b"message")], max_queue_depth=1)
        assert accepted == AcceptedBatch(first.batch_id, created=False)
        assert world.store.find_idempotent("key") == KnownKey("content", batch_id=first.batch_id)
        assert world.store.get_many(ids_of(again)) == [None]
        assert world.pushed(key_prefix) == []

    def test_other_content_is_a_conflict_with_the_first_batch(self, store: TaskStore) -> None:
        first = a_batch(a_request(), idempotency_key="key", fingerprint="content")
        store.accept_batch(first, enqueue=[], max_queue_depth=0)
        for other in (a_batch(a_request(), idempotency_key="key", fingerprint="other"),):
            with pytest.raises(IdempotencyConflict) as caught:
                store.accept_batch(other, enqueue=[], max_queue_depth=0)
            assert (caught.value.batch_id, caught.value.task_id) == (first.batch_id, None)

    def test_a_key_is_a_tasks_or_a_batchs(self, store: TaskStore) -> None:
        task_id = accept(store, idempotency_key="1", fingerprint="task")
        with pytest.raises(IdempotencyConflict) as caught:
            store.accept_batch(a_batch(a_request(), idempotency_key="1", fingerprint="batch"), enqueue=[], max_queue_depth=0)
        assert caught.value.task_id == task_id
        batch = a_batch(a_request(), idempotency_key="2", fingerprint="batch")
        store.accept_batch(batch, enqueue=[], max_queue_depth=0)
        with pytest.raises(IdempotencyConflict) as caught:
            accept(store, idempotency_key="2", fingerprint="task")
        assert caught.value.batch_id == batch.batch_id

    def test_a_key_is_forgotten_after_its_time(self, world: StoreWorld) -> None:
        batch = a_batch(a_request(), idempotency_key="key", fingerprint="content")
        world.store.accept_batch(batch, enqueue=[], max_queue_depth=0)
        world.let_pass(IDEMPOTENCY_TTL_S + 1)
        assert world.store.find_idempotent("key") is None

    def test_a_key_whose_batch_was_withdrawn_is_free(self, store: TaskStore) -> None:
        batch = a_batch(a_request(), idempotency_key="key", fingerprint="content")
        store.accept_batch(batch, enqueue=[], max_queue_depth=0)
        assert store.withdraw_batch(batch.batch_id)
        assert store.find_idempotent("key") is None
        assert store.accept(a_request(idempotency_key="key", fingerprint="2"), enqueue=None, max_queue_depth=0).created


class TestLife:
    def test_a_batch_lives_as_long_as_the_last_of_its_tasks(self, world: StoreWorld) -> None:
        batch = accept_batch(world.store, 2, deadline_s=10 * RESULT_TTL_S)
        first, second = ids_of(batch)
        end(world.store, first)
        world.let_pass(9 * RESULT_TTL_S)
        assert world.store.get_many([first]) == [None]
        end(world.store, second)
        world.let_pass(RESULT_TTL_S - 60)
        assert world.store.get_batch(batch.batch_id).task_ids == [first, second]
        world.let_pass(3 * RESULT_TTL_S)
        with pytest.raises(BatchNotFound):
            world.store.get_batch(batch.batch_id)

    def test_a_batch_waits_with_its_tasks_for_a_sink(self, world: StoreWorld) -> None:
        """However long the sink is down."""
        batch = accept_batch(world.store, 2, deadline_s=5, sinks=("jsonl",))
        for task_id in ids_of(batch):
            end(world.store, task_id)
        world.let_pass(10 * RESULT_TTL_S)
        assert world.store.get_batch(batch.batch_id).task_ids == ids_of(batch)
        world.store.confirm_deliveries("jsonl", world.outbox("jsonl"))
        world.let_pass(RESULT_TTL_S - 60)
        assert world.store.get_batch(batch.batch_id).task_ids == ids_of(batch)
        world.let_pass(120)
        with pytest.raises(BatchNotFound):
            world.store.get_batch(batch.batch_id)


class TestWithdraw:
    def test_nothing_of_a_batch_is_left(self, world: StoreWorld) -> None:
        batch = accept_batch(world.store, deadline_s=1)
        assert world.store.withdraw_batch(batch.batch_id)
        assert world.store.get_many(ids_of(batch)) == [None] * 3
        assert world.store.get_queue_stats(QUEUE).depth == 0
        with pytest.raises(BatchNotFound):
            world.store.get_batch(batch.batch_id)
        world.let_pass(10)
        assert world.store.expire_due(10) == []

    def test_once_a_task_of_it_runs_all_of_it_stays(self, store: TaskStore) -> None:
        batch = accept_batch(store)
        second = ids_of(batch)[1]
        store.lease("w", [second])
        store.start("w", [second])
        assert not store.withdraw_batch(batch.batch_id)
        assert [status(store, task_id) for task_id in ids_of(batch)] == ["queued", "running", "queued"]
        assert store.get_batch(batch.batch_id).task_ids == ids_of(batch)


class TestCancel:
    def test_what_has_not_ended_is_canceled(self, store: TaskStore) -> None:
        batch = accept_batch(store)
        waiting, runs, ended = ids_of(batch)
        store.lease("w", [runs])
        store.start("w", [runs])
        end(store, ended)
        assert store.cancel_many([*ids_of(batch), "nobody"]) == [True, True, False, False]
        assert [status(store, task_id) for task_id in (waiting, runs, ended)] == ["canceled", "canceled", "succeeded"]
        assert store.cancel_many(ids_of(batch)) == [False] * 3
        assert lease_one(store, "w", waiting).state is LeaseState.FINISHED
        assert not commit_one(store, "w", runs, attempt=1)

    def test_none(self, store: TaskStore) -> None:
        running(store, "w")
        assert store.cancel_many([]) == []
