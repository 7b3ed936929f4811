"""The API's side of every task store: accept, look, withdraw, cancel."""

from __future__ import annotations

from typing import Any

import pytest
from store_worlds import (
    ALL,
    IDEMPOTENCY_TTL_S,
    LONGER_THAN_A_LEASE_S,
    RESULT_TTL_S,
    StoreWorld,
    accept,
    finished,
    lease_one,
    leased,
    position,
    running,
    status,
)
from support.samples import MODEL, QUEUE, a_request, an_item
from support.task_pages import ids_of_request

from inference.domain import TaskStatus
from inference.errors import IdempotencyConflict, Overloaded, TaskAlreadyFinished, TaskNotFound
from inference.task_store import Accepted, Enqueue, KnownKey, LeaseState, TaskFilter, TaskState, TaskStore


class TestAccept:
    def test_the_record_says_what_was_asked_for(self, store: TaskStore) -> None:
        request = a_request(request_id="größer", sinks=("kafka", "jsonl"), store_ms=1.25, deadline_s=30)
        assert store.accept(request, enqueue=None, max_queue_depth=0) == Accepted(request.task_id, created=True)
        record = store.get(request.task_id)
        assert (record.task_id, record.request_id) == (request.task_id, "größer")
        assert (record.model, record.queue, record.item) == (request.model, request.queue, request.item)
        assert (record.status, record.attempts, record.deaths) == (TaskStatus.QUEUED, 0, 0)
        assert record.deadline_at_ms - record.created_at_ms == 30_000
        assert (record.started_at_ms, record.finished_at_ms, record.outcome) == (0, 0, None)
        assert (record.store_ms, record.deliveries) == (1.25, {})

    def test_the_message_is_pushed_in_the_same_step(self, world: StoreWorld, key_prefix: str) -> None:
        for payload in (b"first", b"second"):
            world.store.accept(a_request(), enqueue=Enqueue(key_prefix, payload), max_queue_depth=0)
        assert world.pushed(key_prefix) == [b"first", b"second"]

    def test_the_same_task_again_changes_nothing(self, world: StoreWorld, key_prefix: str) -> None:
        request, enqueue = a_request(), Enqueue(key_prefix, b"message")
        first = world.store.accept(request, enqueue=enqueue, max_queue_depth=0)
        assert world.store.accept(request, enqueue=enqueue, max_queue_depth=1) == first
        assert world.pushed(key_prefix) == [b"message"]
        assert world.store.get_queue_stats(QUEUE).depth == 1

    def test_a_record_waits_without_an_end(self, world: StoreWorld) -> None:
        assert world.expires_in_s(accept(world.store)) is None

    def test_a_full_queue_refuses_and_leaves_nothing(self, world: StoreWorld, key_prefix: str) -> None:
        accept(world.store)
        accept(world.store, queue="predict.other")
        refused = a_request()
        with pytest.raises(Overloaded):
            world.store.accept(refused, enqueue=Enqueue(key_prefix, b"message"), max_queue_depth=1)
        assert world.store.get_many([refused.task_id]) == [None]
        assert ids_of_request(world.store, refused.request_id) == []
        assert world.pushed(key_prefix) == []

    def test_a_started_task_does_not_fill_the_queue(self, store: TaskStore) -> None:
        running(store, "w")
        assert store.accept(a_request(), enqueue=None, max_queue_depth=1).created


class TestIdempotency:
    def test_the_same_key_and_content_is_the_same_task(self, world: StoreWorld, key_prefix: str) -> None:
        first = accept(world.store, idempotency_key="key", fingerprint="content")
        again = a_request(idempotency_key="key", fingerprint="content")
        accepted = world.store.accept(again, enqueue=Enqueue(key_prefix, b"message"), max_queue_depth=0)
        assert accepted == Accepted(first, created=False)
        assert world.store.get_many([again.task_id]) == [None]
        assert world.pushed(key_prefix) == []

    def test_other_content_is_a_conflict_with_the_first_task(self, store: TaskStore) -> None:
        first = accept(store, idempotency_key="key", fingerprint="content")
        with pytest.raises(IdempotencyConflict) as caught:
            accept(store, idempotency_key="key", fingerprint="other content")
        assert caught.value.task_id == first
        assert caught.value.field == "Idempotency-Key"

    def test_a_replay_is_answered_although_the_queue_is_full(self, store: TaskStore) -> None:
        first = accept(store, idempotency_key="key", fingerprint="content")
        again = a_request(idempotency_key="key", fingerprint="content")
        assert store.accept(again, enqueue=None, max_queue_depth=1).task_id == first

    def test_a_finished_task_is_replayed(self, store: TaskStore) -> None:
        first = finished(store, idempotency_key="key", fingerprint="content")
        again = a_request(idempotency_key="key", fingerprint="content")
        assert store.accept(again, enqueue=None, max_queue_depth=0) == Accepted(first, created=False)

    def test_a_refused_request_does_not_take_the_key(self, store: TaskStore) -> None:
        accept(store)
        with pytest.raises(Overloaded):
            store.accept(a_request(idempotency_key="key", fingerprint="1"), enqueue=None, max_queue_depth=1)
        assert store.accept(a_request(idempotency_key="key", fingerprint="2"), enqueue=None, max_queue_depth=0).created

    def test_a_key_is_forgotten_after_its_time(self, world: StoreWorld) -> None:
        first = accept(world.store, idempotency_key="key", fingerprint="content")
        assert world.store.find_idempotent("key") == KnownKey("content", task_id=first)
        world.let_pass(IDEMPOTENCY_TTL_S + 1)
        assert world.store.find_idempotent("key") is None
        assert accept(world.store, idempotency_key="key", fingerprint="other content") != first

    def test_a_key_whose_task_was_withdrawn_is_free(self, store: TaskStore) -> None:
        store.withdraw(accept(store, idempotency_key="key", fingerprint="content"))
        assert store.find_idempotent("key") is None
        assert store.accept(a_request(idempotency_key="key", fingerprint="2"), enqueue=None, max_queue_depth=0).created

    def test_an_unknown_key_is_none(self, store: TaskStore) -> None:
        assert store.find_idempotent("key") is None


class TestReading:
    def test_an_unknown_task_is_not_found(self, store: TaskStore) -> None:
        with pytest.raises(TaskNotFound) as caught:
            store.get("nobody")
        assert caught.value.task_id == "nobody"

    def test_many_are_answered_in_order(self, store: TaskStore) -> None:
        first, second = accept(store), accept(store)
        records = store.get_many([second, "nobody", first, second])
        assert [record and record.task_id for record in records] == [second, None, first, second]
        assert store.get_many([]) == []

    def test_what_has_ended_is_told_with_its_outcome(self, store: TaskStore) -> None:
        waiting, canceled, succeeded = accept(store), accept(store, request_id="größer"), finished(store)
        store.cancel(canceled)
        nobody, still_waits, first, second = store.get_completed(["nobody", waiting, canceled, succeeded])
        assert (nobody, still_waits) == (None, None)
        for ended, task_id in ((first, canceled), (second, succeeded)):
            record = store.get(task_id)
            assert ended is not None
            assert (ended.task_id, ended.request_id, ended.outcome.status) == (task_id, record.request_id, record.status)
            assert (ended.created_at_ms, ended.finished_at_ms) == (record.created_at_ms, record.finished_at_ms)
        assert second is not None
        assert second.outcome.result is not None
        assert store.get_completed([]) == []

    def test_a_task_without_a_request_id_is_found_by_its_own(self, store: TaskStore) -> None:
        item = an_item()
        first = accept(store, task_id=item.task_id, item=item, request_id=item.task_id)
        assert ids_of_request(store, first) == [first]
        again = accept(store, request_id=first)
        assert ids_of_request(store, first) == [again, first]
        assert ids_of_request(store, again) == []
        assert store.withdraw(first)
        assert ids_of_request(store, first) == [again]

    def test_the_tasks_of_a_request_come_newest_first(self, store: TaskStore) -> None:
        ids = [accept(store, request_id="ensemble-1") for _ in range(12)]
        accept(store, request_id="ensemble-2")
        assert ids_of_request(store, "ensemble-1") == ids[::-1]
        assert ids_of_request(store, "ensemble-3") == []

    def test_a_task_is_found_by_its_request_as_long_as_its_record_lives(self, world: StoreWorld) -> None:
        """The record lives from the delivery on, which may come long after the end."""
        task_id = finished(world.store, request_id="r", deadline_s=5, sinks=("jsonl",))
        world.let_pass(RESULT_TTL_S - 60)
        world.store.confirm_deliveries("jsonl", world.outbox("jsonl"))
        world.let_pass(RESULT_TTL_S - 60)
        assert world.store.get(task_id).task_id == task_id
        assert ids_of_request(world.store, "r") == [task_id]

    def test_a_request_id_is_answered_in_pages(self, store: TaskStore) -> None:
        ids = [accept(store, request_id="r") for _ in range(5)]
        first = store.list_tasks(TaskFilter("r"), limit=2)
        assert first.task_ids == (ids[4], ids[3])
        assert first.next_before is not None
        second = store.list_tasks(TaskFilter("r"), before=first.next_before, limit=3)
        assert (second.task_ids, second.next_before) == ((ids[2], ids[1], ids[0]), None)
        assert [ids_of_request(store, "r", limit=limit) for limit in (1, 2, 3, 4, 5, 6)] == [ids[::-1]] * 6

    @pytest.mark.parametrize("request_id", ["r", ""])
    def test_no_task_is_before_the_first(self, store: TaskStore, request_id: str) -> None:
        task_id = accept(store, request_id="r")
        for before in (0, 1):
            page = store.list_tasks(TaskFilter(request_id), before=before)
            assert (page.task_ids, page.next_before) == ((), None)
        page = store.list_tasks(TaskFilter(request_id), before=2**64 - 1)
        assert (page.task_ids, page.next_before) == ((task_id,), None)

    def test_pages_miss_and_repeat_none_while_tasks_come_and_go(self, world: StoreWorld) -> None:
        """Tasks that were there from the first page to the last come once, in order."""
        store = world.store
        dying = [finished(store, request_id="r") for _ in range(3)]
        world.let_pass(RESULT_TTL_S - 60)
        staying = [accept(store, request_id="r") for _ in range(4)]
        page = store.list_tasks(TaskFilter("r"), limit=2)
        assert page.task_ids == (staying[3], staying[2])
        world.let_pass(61)
        accept(store, request_id="r")
        store.withdraw(staying[1])
        found: list[str] = []
        while page.next_before is not None:
            page = store.list_tasks(TaskFilter("r"), before=page.next_before, limit=2)
            found += page.task_ids
        assert (found, store.get_many(dying)) == ([staying[0]], [None] * 3)

    def test_a_task_whose_id_is_the_request_id_has_its_place_in_the_pages(self, store: TaskStore) -> None:
        """Messages of Celery's clients bring their own ids, which others may have named before."""
        item = an_item()
        earlier = accept(store, request_id=item.task_id)
        own = accept(store, task_id=item.task_id, item=item, request_id=item.task_id)
        later = accept(store, request_id=item.task_id)
        assert [ids_of_request(store, own, limit=limit) for limit in (1, 2, 3)] == [[later, own, earlier]] * 3

    def test_places_of_many_tasks_in_many_queues_come_together(self, store: TaskStore) -> None:
        others = [accept(store, queue="predict.other") for _ in range(2)]
        mine, started = accept(store), running(store, "w")
        places = store.get_places({QUEUE: [started, mine, "nobody"], "predict.other": others[::-1], "predict.third": [mine]})
        assert {task_id: place.position for task_id, place in places.items()} == {mine: 0, others[0]: 0, others[1]: 1}
        assert store.get_places({}) == {}

    def test_a_place_says_how_fast_its_queue_moves(self, world: StoreWorld) -> None:
        task_id = accept(world.store)
        world.let_pass(5)
        for _ in range(30):
            finished(world.store)
        place = world.store.get_places({QUEUE: [task_id]})[task_id]
        assert place.drain_rate_per_s == pytest.approx(world.store.get_queue_stats(QUEUE).drain_rate_per_s, rel=0.2)
        assert place.drain_rate_per_s > 0

    def test_positions_count_those_accepted_before_that_wait(self, store: TaskStore) -> None:
        first, second, third = (accept(store) for _ in range(3))
        accept(store, queue="predict.other")
        assert [position(store, task_id) for task_id in (first, second, third)] == [0, 1, 2]
        store.lease("w", [first, second])
        assert position(store, third) == 2
        store.start("w", [first])
        store.cancel(second)
        assert [position(store, task_id) for task_id in (first, second, third)] == [None, None, 0]

    def test_stats_of_a_queue_that_nobody_used(self, store: TaskStore) -> None:
        stats = store.get_queue_stats(QUEUE)
        assert (stats.depth, stats.oldest_age_s, stats.drain_rate_per_s) == (0, 0, 0)

    def test_stats_say_how_many_wait_and_how_long(self, world: StoreWorld) -> None:
        accept(world.store)
        world.let_pass(40)
        accept(world.store)
        stats = world.store.get_queue_stats(QUEUE)
        assert stats.depth == 2
        assert 40 <= stats.oldest_age_s < 80


class TestWithdraw:
    def test_a_queued_task_is_forgotten(self, store: TaskStore) -> None:
        task_id = accept(store, request_id="r", deadline_s=0.001)
        store.withdraw(task_id)
        assert store.get_many([task_id]) == [None]
        assert ids_of_request(store, "r") == []
        assert store.get_queue_stats(QUEUE).depth == 0

    def test_a_withdrawn_task_neither_expires_nor_gets_lost(self, world: StoreWorld) -> None:
        world.store.withdraw(accept(world.store, deadline_s=1))
        world.let_pass(3600)
        assert world.store.expire_due(ALL) == []
        assert world.store.find_lost(QUEUE, up_to=None, grace_s=0, limit=ALL) == []

    def test_a_task_that_runs_or_ended_stays(self, store: TaskStore) -> None:
        ids = [running(store, "w"), finished(store)]
        for task_id in [*ids, "nobody"]:
            store.withdraw(task_id)
        assert [status(store, task_id) for task_id in ids] == [TaskStatus.RUNNING, TaskStatus.SUCCEEDED]

    def test_a_worker_that_holds_it_cannot_start_it(self, world: StoreWorld) -> None:
        task_id = leased(world.store, "w")
        world.store.withdraw(task_id)
        assert world.store.renew("w", [task_id]) == [False]
        assert world.store.start("w", [task_id]) == [None]
        world.let_pass(LONGER_THAN_A_LEASE_S)
        reaped = world.store.reap("sweeper", max_attempts=3, limit=ALL)
        assert (reaped.requeue, reaped.exhausted) == ((), ())


class TestCancel:
    @pytest.mark.parametrize("make", [accept, lambda store: leased(store, "w"), lambda store: running(store, "w")])
    def test_a_task_is_canceled_wherever_it_is(self, store: TaskStore, make: Any) -> None:
        task_id = make(store)
        record = store.cancel(task_id)
        assert record.status is TaskStatus.CANCELED
        assert record.outcome is not None
        assert record.outcome.error is not None
        assert record.outcome.error["code"] == "task_canceled"
        assert record.finished_at_ms >= record.created_at_ms
        assert store.get_queue_stats(QUEUE).depth == 0
        assert lease_one(store, "other", task_id).state is LeaseState.FINISHED

    def test_what_has_ended_cannot_be_canceled(self, store: TaskStore) -> None:
        succeeded, canceled = finished(store), accept(store)
        store.cancel(canceled)
        for task_id in (succeeded, canceled):
            with pytest.raises(TaskAlreadyFinished) as caught:
                store.cancel(task_id)
            assert caught.value.task_id == task_id
        assert status(store, succeeded) is TaskStatus.SUCCEEDED

    def test_an_unknown_task_is_not_found(self, store: TaskStore) -> None:
        with pytest.raises(TaskNotFound):
            store.cancel("nobody")

    def test_a_canceled_task_goes_to_no_sink_and_is_forgotten_in_time(self, world: StoreWorld) -> None:
        task_id = accept(world.store, sinks=("jsonl",))
        world.store.cancel(task_id)
        assert world.outbox("jsonl") == []
        world.let_pass(RESULT_TTL_S + 1)
        assert world.store.get_many([task_id]) == [None]


class TestStates:
    def test_each_task_has_its_state_and_others_have_none(self, world: StoreWorld) -> None:
        waiting, run = accept(world.store, request_id="photo-17"), running(world.store, "w")
        states = world.store.get_states([run, "nobody", waiting])
        assert states == [
            TaskState(TaskStatus.RUNNING, 1, f"request-{run}", MODEL.name),
            None,
            TaskState(TaskStatus.QUEUED, 0, "photo-17", MODEL.name),
        ]
        assert world.store.get_states([]) == []

    def test_many_at_once(self, store: TaskStore) -> None:
        task_ids = [accept(store) for _ in range(20)] * 400
        assert len(store.get_states(task_ids)) == 8000
