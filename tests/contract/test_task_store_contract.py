"""What every task store does: each transition, and each fence that keeps a second writer out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import redis
from store_worlds import IDEMPOTENCY_TTL_S, LEASE_S, RESULT_TTL_S, FakeWorld, RedisWorld, StoreWorld
from support.samples import QUEUE, VECTOR, a_failure, a_request, a_success

from inference.errors import IdempotencyConflict, Overloaded, TaskAlreadyFinished, TaskNotFound
from inference.messages import Outcome, TaskStatus
from inference.task_store import Accepted, Commit, Enqueue, Lease, LeaseState, TaskStore

LONGER_THAN_A_LEASE_S = LEASE_S + 1
ALL = 1000


@pytest.fixture(params=["redis", "fake"])
def world(request: pytest.FixtureRequest, redis_client: redis.Redis, key_prefix: str) -> StoreWorld:
    return RedisWorld(redis_client, key_prefix) if request.param == "redis" else FakeWorld(key_prefix)


@pytest.fixture
def store(world: StoreWorld) -> TaskStore:
    return world.store


def accept(store: TaskStore, **changes: Any) -> str:
    """A new task; gives its id."""
    return store.accept(a_request(**changes), enqueue=None, max_queue_depth=0).task_id


def leased(store: TaskStore, owner: str, **changes: Any) -> str:
    task_id = accept(store, **changes)
    assert lease_one(store, owner, task_id).state is LeaseState.LEASED
    return task_id


def running(store: TaskStore, owner: str, **changes: Any) -> str:
    task_id = leased(store, owner, **changes)
    assert store.start(owner, [task_id]) == [1]
    return task_id


def finished(store: TaskStore, **changes: Any) -> str:
    task_id = running(store, "w", **changes)
    assert commit_one(store, "w", task_id, attempt=1)
    return task_id


def lease_one(store: TaskStore, owner: str, task_id: str) -> Lease:
    return store.lease(owner, [task_id]).leases[0]


def commit_one(store: TaskStore, owner: str, task_id: str, *, attempt: int, outcome: Outcome | None = None) -> bool:
    return store.commit(owner, [Commit(task_id, attempt, outcome or a_success())])[0]


def bury_one(store: TaskStore, owner: str, task_id: str, *, attempt: int) -> bool:
    return store.commit(owner, [Commit(task_id, attempt, a_failure(), dead_letter=True)])[0]


def status(store: TaskStore, task_id: str) -> TaskStatus:
    return store.get(task_id).status


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
        assert world.store.queue_stats(QUEUE).depth == 1

    def test_a_record_waits_without_an_end(self, world: StoreWorld) -> None:
        assert world.expires_in_s(accept(world.store)) is None

    def test_a_full_queue_refuses_and_leaves_nothing(self, world: StoreWorld, key_prefix: str) -> None:
        accept(world.store)
        accept(world.store, queue="predict.other")
        refused = a_request()
        with pytest.raises(Overloaded):
            world.store.accept(refused, enqueue=Enqueue(key_prefix, b"message"), max_queue_depth=1)
        assert world.store.get_many([refused.task_id]) == [None]
        assert world.store.find_by_request(refused.request_id) == []
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
        assert world.store.find_idempotent("key") == (first, "content")
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

    def test_the_tasks_of_a_request_come_oldest_first(self, store: TaskStore) -> None:
        ids = [accept(store, request_id="ensemble-1") for _ in range(12)]
        accept(store, request_id="ensemble-2")
        assert store.find_by_request("ensemble-1") == ids
        assert store.find_by_request("ensemble-3") == []

    def test_a_task_is_found_by_its_request_as_long_as_its_record_lives(self, world: StoreWorld) -> None:
        """From its delivery on, which may come long after its end."""
        task_id = finished(world.store, request_id="r", deadline_s=5, sinks=("jsonl",))
        world.let_pass(RESULT_TTL_S - 60)
        world.store.delivered("jsonl", world.outbox("jsonl"))
        world.let_pass(RESULT_TTL_S - 60)
        assert world.store.get(task_id).task_id == task_id
        assert world.store.find_by_request("r") == [task_id]

    def test_positions_count_those_accepted_before_that_wait(self, store: TaskStore) -> None:
        first, second, third = (accept(store) for _ in range(3))
        accept(store, queue="predict.other")
        assert [store.position(QUEUE, task_id) for task_id in (first, second, third)] == [0, 1, 2]
        store.lease("w", [first, second])
        assert store.position(QUEUE, third) == 2
        store.start("w", [first])
        store.cancel(second)
        assert [store.position(QUEUE, task_id) for task_id in (first, second, third)] == [None, None, 0]

    def test_stats_of_a_queue_that_nobody_used(self, store: TaskStore) -> None:
        stats = store.queue_stats(QUEUE)
        assert (stats.depth, stats.oldest_age_s, stats.drain_rate_per_s) == (0, 0, 0)

    def test_stats_say_how_many_wait_and_how_long(self, world: StoreWorld) -> None:
        accept(world.store)
        world.let_pass(40)
        accept(world.store)
        stats = world.store.queue_stats(QUEUE)
        assert stats.depth == 2
        assert 40 <= stats.oldest_age_s < 80

    def test_stats_say_how_fast_tasks_end_while_others_wait(self, world: StoreWorld) -> None:
        accept(world.store)
        world.let_pass(5)
        for _ in range(30):
            finished(world.store)
        rate = world.store.queue_stats(QUEUE).drain_rate_per_s
        assert 30 / 11 <= rate <= 30 / 5  # over the five seconds, or what this test takes longer
        assert world.store.queue_stats("predict.other").drain_rate_per_s == 0

    def test_stats_forget_what_ended_long_ago(self, world: StoreWorld) -> None:
        accept(world.store)
        finished(world.store)
        world.let_pass(12)
        assert world.store.queue_stats(QUEUE).drain_rate_per_s == 0

    def test_tasks_that_end_as_they_come_say_nothing_of_what_could_be_done(self, store: TaskStore) -> None:
        for _ in range(30):
            finished(store)
        assert store.queue_stats(QUEUE).drain_rate_per_s == 0


class TestWithdraw:
    def test_a_queued_task_is_forgotten(self, store: TaskStore) -> None:
        task_id = accept(store, request_id="r", deadline_s=0.001)
        store.withdraw(task_id)
        assert store.get_many([task_id]) == [None]
        assert store.find_by_request("r") == []
        assert store.queue_stats(QUEUE).depth == 0

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


class TestLease:
    def test_a_waiting_task_is_leased_once(self, store: TaskStore) -> None:
        task_id = accept(store, deadline_s=30)
        record, leases = store.get(task_id), store.lease("w1", [task_id])
        expected = Lease(LeaseState.LEASED, created_at_ms=record.created_at_ms, deadline_at_ms=record.deadline_at_ms)
        assert leases.leases == (expected,)
        assert record.created_at_ms <= leases.now_ms < record.deadline_at_ms
        assert lease_one(store, "w2", task_id).state is LeaseState.HELD

    def test_the_owner_may_lease_again(self, store: TaskStore) -> None:
        task_id = leased(store, "w1")
        assert lease_one(store, "w1", task_id).state is LeaseState.LEASED
        store.start("w1", [task_id])
        again = lease_one(store, "w1", task_id)
        assert (again.state, again.attempts) == (LeaseState.LEASED, 1)

    def test_states_come_in_the_order_of_the_ids(self, store: TaskStore) -> None:
        ids = [finished(store), leased(store, "w1"), "nobody", accept(store)]
        states = [lease.state for lease in store.lease("w2", ids).leases]
        assert states == [LeaseState.FINISHED, LeaseState.HELD, LeaseState.UNKNOWN, LeaseState.LEASED]

    def test_a_lease_that_ran_out_is_anothers(self, world: StoreWorld) -> None:
        task_id = leased(world.store, "w1")
        world.let_pass(LONGER_THAN_A_LEASE_S)
        assert lease_one(world.store, "w2", task_id).state is LeaseState.LEASED
        assert world.store.renew("w1", [task_id]) == [False]
        assert world.store.start("w1", [task_id]) == [None]

    def test_a_running_task_whose_lease_ran_out_is_the_reapers_first(self, world: StoreWorld) -> None:
        task_id = running(world.store, "w1")
        world.let_pass(LONGER_THAN_A_LEASE_S)
        assert lease_one(world.store, "w2", task_id).state is LeaseState.HELD
        assert world.store.reap("sweeper", max_attempts=3, limit=ALL).requeue == (task_id,)
        assert lease_one(world.store, "w2", task_id) == Lease(
            LeaseState.LEASED,
            alone=True,
            attempts=1,
            created_at_ms=world.store.get(task_id).created_at_ms,
            deadline_at_ms=world.store.get(task_id).deadline_at_ms,
        )

    def test_a_leased_task_still_waits(self, store: TaskStore) -> None:
        task_id = leased(store, "w")
        assert status(store, task_id) is TaskStatus.QUEUED
        assert store.queue_stats(QUEUE).depth == 1

    def test_no_ids_are_fine(self, store: TaskStore) -> None:
        assert store.lease("w", []).leases == ()
        assert (store.renew("w", []), store.start("w", []), store.commit("w", []), store.note_death("w", [])) == ([], [], [], [])
        store.release("w", [])


class TestRenew:
    def test_a_renewed_lease_starts_anew(self, world: StoreWorld) -> None:
        task_id = leased(world.store, "w")
        for _ in range(3):
            world.let_pass(LEASE_S * 0.6)
            assert world.store.renew("w", [task_id]) == [True]
        assert world.store.reap("sweeper", max_attempts=3, limit=ALL).requeue == ()

    def test_only_the_owner_renews(self, store: TaskStore) -> None:
        ids = [leased(store, "w1"), finished(store), accept(store), "nobody", leased(store, "w2")]
        assert store.renew("w2", ids) == [False, False, False, False, True]

    def test_a_canceled_task_is_not_the_owners_any_more(self, store: TaskStore) -> None:
        task_id = leased(store, "w")
        store.cancel(task_id)
        assert store.renew("w", [task_id]) == [False]


class TestStart:
    def test_each_start_counts_an_attempt(self, store: TaskStore) -> None:
        task_id = leased(store, "w")
        assert store.start("w", [task_id]) == [1]
        assert store.start("w", [task_id]) == [2]
        record = store.get(task_id)
        assert (record.status, record.attempts) == (TaskStatus.RUNNING, 2)
        assert record.started_at_ms >= record.created_at_ms

    def test_only_what_may_run_is_started(self, world: StoreWorld) -> None:
        store = world.store
        overdue = leased(store, "w", deadline_s=5)
        canceled = leased(store, "w")
        store.cancel(canceled)
        world.let_pass(6)
        ids = [overdue, canceled, leased(store, "other"), accept(store), "nobody", finished(store), leased(store, "w")]
        assert store.start("w", ids) == [None, None, None, None, None, None, 1]
        assert store.get(overdue).attempts == 0
        assert status(store, canceled) is TaskStatus.CANCELED

    def test_a_start_renews_the_lease(self, world: StoreWorld) -> None:
        task_id = leased(world.store, "w")
        world.let_pass(LEASE_S * 0.6)
        world.store.start("w", [task_id])
        world.let_pass(LEASE_S * 0.6)
        assert world.store.reap("sweeper", max_attempts=3, limit=ALL).requeue == ()

    def test_the_watermark_is_the_latest_acceptance_that_started(self, store: TaskStore) -> None:
        assert store.started_watermark(QUEUE) == 0
        first, second = leased(store, "w"), leased(store, "w")
        store.start("w", [second])
        high = store.started_watermark(QUEUE)
        store.start("w", [first])
        assert store.started_watermark(QUEUE) == high > 0
        store.start("w", [leased(store, "w")])
        assert store.started_watermark(QUEUE) > high
        assert store.started_watermark("predict.other") == 0


class TestCommit:
    def test_a_result_is_kept_bit_for_bit(self, store: TaskStore) -> None:
        outcome = a_success()
        task_id = running(store, "w")
        assert commit_one(store, "w", task_id, attempt=1, outcome=outcome)
        record = store.get(task_id)
        assert record.status is TaskStatus.SUCCEEDED
        assert record.outcome is not None
        assert record.outcome.result is not None
        np.testing.assert_array_equal(record.outcome.result.prediction, VECTOR)
        assert record.outcome.result.prediction.tobytes() == VECTOR.tobytes()
        assert (record.outcome.result.class_index, record.outcome.result.label) == (4, "eel")
        assert (record.outcome.timings, record.outcome.worker, record.outcome.batch_size) == ({"queue_ms": 1.5}, "w1", 4)
        assert record.finished_at_ms >= record.started_at_ms

    def test_a_failure_is_kept(self, store: TaskStore) -> None:
        task_id = running(store, "w")
        assert commit_one(store, "w", task_id, attempt=1, outcome=a_failure())
        record = store.get(task_id)
        assert (record.status, record.outcome) == (TaskStatus.FAILED, a_failure())

    def test_a_second_commit_is_refused(self, store: TaskStore) -> None:
        task_id = finished(store)
        before = store.get(task_id)
        assert not commit_one(store, "w", task_id, attempt=1, outcome=a_failure())
        assert store.get(task_id).status is before.status

    def test_the_same_task_twice_in_one_call_is_written_once(self, world: StoreWorld) -> None:
        task_id = running(world.store, "w", sinks=("jsonl",))
        commit = Commit(task_id, 1, a_success())
        assert world.store.commit("w", [commit, commit]) == [True, False]
        assert len(world.outbox("jsonl")) == 1

    def test_an_item_that_never_started_commits_with_attempt_0(self, store: TaskStore) -> None:
        task_id = leased(store, "w")
        assert commit_one(store, "w", task_id, attempt=0, outcome=a_failure())
        assert store.get(task_id).attempts == 0
        assert store.queue_stats(QUEUE).depth == 0

    def test_a_stale_attempt_is_refused(self, store: TaskStore) -> None:
        task_id = running(store, "w")
        store.start("w", [task_id])
        assert not commit_one(store, "w", task_id, attempt=0)
        assert not commit_one(store, "w", task_id, attempt=1)
        assert not commit_one(store, "w", task_id, attempt=3)
        assert commit_one(store, "w", task_id, attempt=2)

    def test_another_owner_is_refused(self, store: TaskStore) -> None:
        task_id = running(store, "w1")
        assert not commit_one(store, "w2", task_id, attempt=1)
        assert status(store, task_id) is TaskStatus.RUNNING

    def test_nobody_commits_what_nobody_holds(self, store: TaskStore) -> None:
        assert not commit_one(store, "w", accept(store), attempt=0)
        assert not commit_one(store, "w", "nobody", attempt=0)

    def test_the_old_owner_is_refused_after_a_reap(self, world: StoreWorld) -> None:
        task_id = running(world.store, "w1")
        world.let_pass(LONGER_THAN_A_LEASE_S)
        world.store.reap("sweeper", max_attempts=3, limit=ALL)
        assert not commit_one(world.store, "w1", task_id, attempt=1)
        lease_one(world.store, "w2", task_id)
        assert not commit_one(world.store, "w1", task_id, attempt=1)
        assert world.store.start("w2", [task_id]) == [2]
        assert not commit_one(world.store, "w1", task_id, attempt=2)
        assert commit_one(world.store, "w2", task_id, attempt=2)

    def test_an_owner_that_was_slow_but_not_reaped_still_commits(self, world: StoreWorld) -> None:
        task_id = running(world.store, "w")
        world.let_pass(LONGER_THAN_A_LEASE_S)
        assert commit_one(world.store, "w", task_id, attempt=1)

    @pytest.mark.parametrize("end", ["cancel", "expire"])
    def test_a_result_after_the_end_is_discarded(self, world: StoreWorld, end: str) -> None:
        task_id = running(world.store, "w", deadline_s=5, sinks=("jsonl",))
        if end == "cancel":
            world.store.cancel(task_id)
        else:
            world.let_pass(6)
            world.store.expire_due(ALL)
        ended = status(world.store, task_id)
        assert not commit_one(world.store, "w", task_id, attempt=1)
        assert status(world.store, task_id) is ended
        assert world.outbox("jsonl") == []

    def test_one_refusal_does_not_touch_its_neighbours(self, store: TaskStore) -> None:
        first, second, third = (running(store, "w") for _ in range(3))
        store.cancel(second)
        assert store.commit("w", [Commit(task_id, 1, a_success()) for task_id in (first, second, third)]) == [True, False, True]
        ends = [status(store, task_id) for task_id in (first, second, third)]
        assert ends == [TaskStatus.SUCCEEDED, TaskStatus.CANCELED, TaskStatus.SUCCEEDED]

    def test_hundreds_in_one_call(self, store: TaskStore) -> None:
        ids = [accept(store) for _ in range(500)]
        assert {lease.state for lease in store.lease("w", ids).leases} == {LeaseState.LEASED}
        assert store.renew("w", ids) == [True] * 500
        assert store.start("w", ids) == [1] * 500
        assert store.commit("w", [Commit(task_id, 1, a_success()) for task_id in ids]) == [True] * 500
        assert store.queue_stats(QUEUE).depth == 0


class TestRelease:
    def test_what_was_given_back_waits_where_it_was(self, store: TaskStore) -> None:
        first, second = running(store, "w"), leased(store, "w")
        store.release("w", [first, second])
        assert [store.position(QUEUE, task_id) for task_id in (first, second)] == [0, 1]
        assert status(store, first) is TaskStatus.QUEUED
        assert lease_one(store, "other", first).state is LeaseState.LEASED
        assert not commit_one(store, "w", first, attempt=1)

    def test_only_the_owner_gives_back(self, store: TaskStore) -> None:
        task_id = running(store, "w")
        store.release("other", [task_id, "nobody"])
        assert status(store, task_id) is TaskStatus.RUNNING
        assert commit_one(store, "w", task_id, attempt=1)

    def test_what_has_ended_stays(self, store: TaskStore) -> None:
        task_id = finished(store)
        store.release("w", [task_id])
        assert status(store, task_id) is TaskStatus.SUCCEEDED
        assert store.queue_stats(QUEUE).depth == 0

    def test_a_release_is_no_loss(self, world: StoreWorld) -> None:
        task_id = accept(world.store)
        for _ in range(3):
            lease_one(world.store, "w", task_id)
            world.store.release("w", [task_id])
            world.let_pass(LONGER_THAN_A_LEASE_S)
            assert world.store.reap("sweeper", max_attempts=3, limit=ALL).requeue == ()
        assert not lease_one(world.store, "w", task_id).alone

    def test_its_message_was_given_back_now(self, world: StoreWorld) -> None:
        """The caller gives the message back too, so that the task is not taken for lost until a grace later."""
        task_id = leased(world.store, "w")
        world.let_pass(60)
        world.store.release("w", [task_id])
        assert world.store.find_lost(QUEUE, up_to=None, grace_s=30, limit=ALL) == []
        world.let_pass(31)
        assert world.store.find_lost(QUEUE, up_to=None, grace_s=30, limit=ALL) == [task_id]


class TestNoteDeath:
    def test_deaths_are_counted_and_the_task_runs_alone(self, store: TaskStore) -> None:
        task_id = running(store, "w")
        assert store.note_death("w", [task_id]) == [1]
        assert lease_one(store, "w", task_id).alone
        assert store.start("w", [task_id]) == [2]
        assert store.note_death("w", [task_id]) == [2]
        record = store.get(task_id)
        assert (record.attempts, record.deaths) == (2, 2)

    def test_the_owner_keeps_it(self, world: StoreWorld) -> None:
        task_id = running(world.store, "w1")
        world.let_pass(LEASE_S * 0.6)
        world.store.note_death("w1", [task_id])
        world.let_pass(LEASE_S * 0.6)
        assert world.store.reap("sweeper", max_attempts=3, limit=ALL).requeue == ()
        assert lease_one(world.store, "w2", task_id).state is LeaseState.HELD
        assert world.store.start("w1", [task_id]) == [2]
        assert commit_one(world.store, "w1", task_id, attempt=2)

    def test_only_what_runs_and_is_the_owners(self, store: TaskStore) -> None:
        ids = [running(store, "other"), leased(store, "w"), finished(store), "nobody"]
        assert store.note_death("w", ids) == [None] * 4
        assert [store.get(task_id).deaths for task_id in ids[:-1]] == [0, 0, 0]

    def test_an_attempt_dies_once_although_two_notice(self, world: StoreWorld) -> None:
        """The predictor process dies, and then the worker that noted it, before it starts the task again."""
        task_id = running(world.store, "w")
        assert world.store.note_death("w", [task_id]) == [1]
        world.let_pass(LONGER_THAN_A_LEASE_S)
        assert world.store.reap("sweeper", max_attempts=2, limit=ALL).requeue == (task_id,)
        record = world.store.get(task_id)
        assert (record.attempts, record.deaths) == (1, 1)

    def test_an_answer_that_got_lost_may_be_asked_for_again(self, store: TaskStore) -> None:
        """The Redis client sends a script again when the connection breaks before its answer."""
        task_id = running(store, "w")
        store.note_death("w", [task_id])
        assert store.note_death("w", [task_id]) == [1]


class TestReap:
    def test_a_live_lease_is_left_alone(self, store: TaskStore) -> None:
        leased(store, "w")
        running(store, "w")
        reaped = store.reap("sweeper", max_attempts=3, limit=ALL)
        assert (reaped.requeue, reaped.exhausted) == ((), ())

    def test_a_prefetched_task_is_queued_again_and_alone_after_the_second_loss(self, world: StoreWorld) -> None:
        task_id = accept(world.store)
        for is_alone in (False, False, True):
            assert lease_one(world.store, "w", task_id).alone is is_alone
            world.let_pass(LONGER_THAN_A_LEASE_S)
            assert world.store.reap("sweeper", max_attempts=1, limit=ALL).requeue == (task_id,)
        record = world.store.get(task_id)
        assert (record.status, record.attempts, record.deaths) == (TaskStatus.QUEUED, 0, 0)

    def test_a_running_task_dies_and_runs_alone(self, world: StoreWorld) -> None:
        waiting_before = accept(world.store)
        task_id = running(world.store, "w")
        world.let_pass(LONGER_THAN_A_LEASE_S)
        assert world.store.reap("sweeper", max_attempts=3, limit=ALL).requeue == (task_id,)
        record = world.store.get(task_id)
        assert (record.status, record.attempts, record.deaths) == (TaskStatus.QUEUED, 1, 1)
        assert [world.store.position(QUEUE, one) for one in (waiting_before, task_id)] == [0, 1]
        assert lease_one(world.store, "w", task_id).alone

    def test_a_task_is_reaped_once(self, world: StoreWorld) -> None:
        running(world.store, "w")
        world.let_pass(LONGER_THAN_A_LEASE_S)
        assert len(world.store.reap("s1", max_attempts=3, limit=ALL).requeue) == 1
        assert world.store.reap("s2", max_attempts=3, limit=ALL).requeue == ()

    def test_the_last_attempt_is_the_reapers_to_bury(self, world: StoreWorld) -> None:
        task_id = accept(world.store)
        for attempt in (1, 2):
            lease_one(world.store, "w", task_id)
            assert world.store.start("w", [task_id]) == [attempt]
            world.let_pass(LONGER_THAN_A_LEASE_S)
            reaped = world.store.reap("sweeper", max_attempts=2, limit=ALL)
        assert (reaped.requeue, reaped.exhausted) == ((), (task_id,))
        assert lease_one(world.store, "w", task_id).state is LeaseState.HELD
        assert not commit_one(world.store, "w", task_id, attempt=2)
        assert bury_one(world.store, "sweeper", task_id, attempt=2)
        assert world.store.get(task_id).deaths == 2

    def test_a_reaper_that_died_is_followed_by_another(self, world: StoreWorld) -> None:
        task_id = running(world.store, "w")
        for reaper in ("s1", "s2", "s3"):
            world.let_pass(LONGER_THAN_A_LEASE_S)
            assert world.store.reap(reaper, max_attempts=1, limit=ALL).exhausted == (task_id,)
        assert not bury_one(world.store, "s1", task_id, attempt=1)
        assert bury_one(world.store, "s3", task_id, attempt=1)
        assert world.store.get(task_id).deaths == 1, "a reaper that died is no attempt of predict"

    def test_at_most_limit_are_taken(self, world: StoreWorld) -> None:
        ids = {leased(world.store, "w") for _ in range(5)}
        world.let_pass(LONGER_THAN_A_LEASE_S)
        first = world.store.reap("sweeper", max_attempts=3, limit=3).requeue
        second = world.store.reap("sweeper", max_attempts=3, limit=3).requeue
        assert (len(first), len(second), {*first, *second}) == (3, 2, ids)

    def test_what_has_ended_is_not_reaped(self, world: StoreWorld) -> None:
        canceled = running(world.store, "w")
        world.store.cancel(canceled)
        finished(world.store)
        world.let_pass(LONGER_THAN_A_LEASE_S)
        reaped = world.store.reap("sweeper", max_attempts=1, limit=ALL)
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
        assert store.queue_stats(QUEUE).depth == 0
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


class TestExpireDue:
    def test_queued_and_running_tasks_end_at_their_deadline(self, world: StoreWorld) -> None:
        store = world.store
        ids = {accept(store, deadline_s=5), leased(store, "w", deadline_s=5), running(store, "w", deadline_s=5)}
        later = accept(store, deadline_s=60)
        assert store.expire_due(ALL) == []
        world.let_pass(6)
        assert set(store.expire_due(ALL)) == ids
        assert store.expire_due(ALL) == []
        for task_id in ids:
            record = store.get(task_id)
            assert record.status is TaskStatus.EXPIRED
            assert record.outcome is not None
            assert record.outcome.error is not None
            assert record.outcome.error["code"] == "deadline_exceeded"
        assert status(store, later) is TaskStatus.QUEUED
        assert store.queue_stats(QUEUE).depth == 1
        assert store.renew("w", sorted(ids)) == [False] * 3

    def test_those_due_first_go_first(self, world: StoreWorld) -> None:
        ids = [accept(world.store, deadline_s=deadline_s) for deadline_s in (3, 1, 2)]
        world.let_pass(5)
        assert world.store.expire_due(2) == [ids[1], ids[2]]
        assert world.store.expire_due(2) == [ids[0]]

    def test_what_has_ended_does_not_expire(self, world: StoreWorld) -> None:
        task_id = finished(world.store, deadline_s=5)
        world.let_pass(6)
        assert world.store.expire_due(ALL) == []
        assert status(world.store, task_id) is TaskStatus.SUCCEEDED

    def test_a_result_before_the_scan_counts(self, world: StoreWorld) -> None:
        task_id = running(world.store, "w", deadline_s=5)
        world.let_pass(6)
        assert commit_one(world.store, "w", task_id, attempt=1)


class TestFindLost:
    def test_waiting_tasks_without_a_lease_are_found_once_a_grace(self, world: StoreWorld) -> None:
        ids = [accept(world.store) for _ in range(3)]
        accept(world.store, queue="predict.other")
        world.let_pass(6)
        fresh = accept(world.store)
        assert world.store.find_lost(QUEUE, up_to=None, grace_s=5, limit=ALL) == ids
        assert world.store.find_lost(QUEUE, up_to=None, grace_s=5, limit=ALL) == []
        world.let_pass(6)
        assert world.store.find_lost(QUEUE, up_to=None, grace_s=5, limit=ALL) == [*ids, fresh]

    def test_what_is_held_runs_or_ended_is_not_lost(self, world: StoreWorld) -> None:
        store = world.store
        canceled, prefetched = accept(store), accept(store)
        store.cancel(canceled)
        running(store, "w")
        finished(store)
        world.let_pass(6)
        lease_one(store, "w", prefetched)
        assert store.find_lost(QUEUE, up_to=None, grace_s=5, limit=ALL) == []

    def test_a_lease_that_ran_out_holds_nothing(self, world: StoreWorld) -> None:
        task_id = leased(world.store, "w")
        world.let_pass(LONGER_THAN_A_LEASE_S)
        assert world.store.find_lost(QUEUE, up_to=None, grace_s=5, limit=ALL) == [task_id]

    def test_only_those_that_later_ones_overtook(self, world: StoreWorld) -> None:
        overtaken = accept(world.store)
        running(world.store, "w")
        accept(world.store)
        world.let_pass(6)
        watermark = world.store.started_watermark(QUEUE)
        assert world.store.find_lost(QUEUE, up_to=watermark, grace_s=5, limit=ALL) == [overtaken]
        assert world.store.find_lost(QUEUE, up_to=0, grace_s=5, limit=ALL) == []

    def test_what_was_reaped_has_just_been_queued(self, world: StoreWorld) -> None:
        leased(world.store, "w")
        world.let_pass(LONGER_THAN_A_LEASE_S)
        world.store.reap("sweeper", max_attempts=3, limit=ALL)
        assert world.store.find_lost(QUEUE, up_to=None, grace_s=5, limit=ALL) == []

    def test_at_most_limit_are_looked_at_oldest_first(self, world: StoreWorld) -> None:
        ids = [accept(world.store) for _ in range(5)]
        world.let_pass(6)
        assert world.store.find_lost(QUEUE, up_to=None, grace_s=5, limit=3) == ids[:3]


class TestDeadLetters:
    def test_they_are_listed_oldest_first_and_kept(self, world: StoreWorld) -> None:
        ids = []
        for _ in range(3):
            ids.append(running(world.store, "w"))
            assert bury_one(world.store, "w", ids[-1], attempt=1)
            world.let_pass(1)
        assert world.store.dead_letters(ALL) == ids
        assert world.store.dead_letters(2) == ids[:2]
        world.let_pass(RESULT_TTL_S * 10)
        assert [status(world.store, task_id) for task_id in ids] == [TaskStatus.FAILED] * 3

    def test_a_discarded_one_expires(self, world: StoreWorld) -> None:
        task_id = running(world.store, "w")
        bury_one(world.store, "w", task_id, attempt=1)
        assert world.expires_in_s(task_id) is None
        assert world.store.discard_dead_letter(task_id)
        assert world.store.dead_letters(ALL) == []
        assert not world.store.discard_dead_letter(task_id)
        world.let_pass(RESULT_TTL_S + 1)
        assert world.store.get_many([task_id]) == [None]

    def test_what_is_none_cannot_be_discarded(self, world: StoreWorld) -> None:
        assert not world.store.discard_dead_letter("nobody")
        task_id = accept(world.store)
        assert not world.store.discard_dead_letter(task_id)
        assert world.expires_in_s(task_id) is None

    def test_a_burial_that_is_refused_is_no_dead_letter(self, store: TaskStore) -> None:
        task_id = running(store, "w")
        store.cancel(task_id)
        assert not bury_one(store, "w", task_id, attempt=1)
        assert store.dead_letters(ALL) == []

    def test_a_dead_letter_goes_to_no_sink(self, world: StoreWorld) -> None:
        task_id = running(world.store, "w", sinks=("jsonl",))
        bury_one(world.store, "w", task_id, attempt=1)
        assert world.outbox("jsonl") == []


class TestOutbox:
    def test_a_success_goes_to_every_sink(self, world: StoreWorld) -> None:
        ids = [finished(world.store, sinks=("jsonl", "kafka")) for _ in range(3)]
        for sink in ("jsonl", "kafka"):
            assert [task_id for _, task_id in world.outbox(sink)] == ids
        assert world.store.get(ids[0]).deliveries == {"jsonl": "pending", "kafka": "pending"}

    def test_a_failure_goes_to_none(self, world: StoreWorld) -> None:
        task_id = running(world.store, "w", sinks=("jsonl",))
        commit_one(world.store, "w", task_id, attempt=1, outcome=a_failure())
        assert world.outbox("jsonl") == []
        assert world.store.get(task_id).deliveries == {}

    def test_a_record_is_kept_until_every_sink_has_it(self, world: StoreWorld) -> None:
        task_id = finished(world.store, sinks=("jsonl", "kafka"))
        world.let_pass(RESULT_TTL_S * 10)
        world.store.delivered("jsonl", world.outbox("jsonl"))
        assert world.store.get(task_id).deliveries == {"jsonl": "delivered", "kafka": "pending"}
        world.let_pass(RESULT_TTL_S * 10)
        assert world.expires_in_s(task_id) is None
        world.store.delivered("kafka", world.outbox("kafka"))
        expires_in_s = world.expires_in_s(task_id)
        assert expires_in_s is not None
        assert 0 < expires_in_s <= RESULT_TTL_S
        assert (world.outbox("jsonl"), world.outbox("kafka")) == ([], [])
        world.let_pass(RESULT_TTL_S + 1)
        assert world.store.get_many([task_id]) == [None]

    def test_a_delivery_that_is_confirmed_twice_counts_once(self, world: StoreWorld) -> None:
        task_id = finished(world.store, sinks=("jsonl", "kafka"))
        entries = world.outbox("jsonl")
        world.store.delivered("jsonl", entries)
        world.store.delivered("jsonl", entries)
        assert world.store.get(task_id).deliveries == {"jsonl": "delivered", "kafka": "pending"}
        assert world.expires_in_s(task_id) is None

    def test_a_record_without_sinks_starts_to_expire_at_its_end(self, world: StoreWorld) -> None:
        task_id = finished(world.store)
        expires_in_s = world.expires_in_s(task_id)
        assert expires_in_s is not None
        assert 0 < expires_in_s <= RESULT_TTL_S

    def test_the_entry_of_a_record_that_is_gone_is_dropped(self, world: StoreWorld) -> None:
        finished(world.store, sinks=("jsonl",))
        ((entry_id, _),) = world.outbox("jsonl")
        world.store.delivered("jsonl", [(entry_id, "nobody")])
        assert world.outbox("jsonl") == []

    def test_other_entries_stay(self, world: StoreWorld) -> None:
        finished(world.store, sinks=("jsonl",))
        second = finished(world.store, sinks=("jsonl",))
        world.store.delivered("jsonl", world.outbox("jsonl")[:1])
        assert [task_id for _, task_id in world.outbox("jsonl")] == [second]


def test_a_store_that_is_up_answers(store: TaskStore) -> None:
    store.ping()
