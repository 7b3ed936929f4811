"""The worker's side of every task store: each transition, and each fence that keeps a second writer out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from store_worlds import (
    ALL,
    LEASE_S,
    LONGER_THAN_A_LEASE_S,
    StoreWorld,
    accept,
    commit_one,
    finished,
    lease_one,
    leased,
    position,
    running,
    status,
)
from support.samples import QUEUE, VECTOR, a_batch, a_failure, a_request, a_success

from inference.domain import TaskStatus
from inference.task_store import Commit, Lease, LeaseState, Order, TaskStore


class TestLease:
    def test_a_waiting_task_is_leased_once(self, store: TaskStore) -> None:
        task_id = accept(store, deadline_s=30)
        record, leases = store.get(task_id), store.lease("w1", [task_id])
        times = {"created_at_ms": record.created_at_ms, "deadline_at_ms": record.deadline_at_ms}
        expected = Lease(LeaseState.LEASED, **times, request_id=record.request_id)
        assert leases.leases == (expected,)
        assert record.created_at_ms <= leases.now_ms < record.deadline_at_ms
        assert lease_one(store, "w2", task_id).state is LeaseState.HELD

    def test_the_holder_may_lease_again(self, store: TaskStore) -> None:
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
            isolated=True,
            attempts=1,
            created_at_ms=world.store.get(task_id).created_at_ms,
            deadline_at_ms=world.store.get(task_id).deadline_at_ms,
            request_id=world.store.get(task_id).request_id,
        )

    def test_a_lease_names_the_batch_and_no_request_id_but_one_of_its_own(self, store: TaskStore) -> None:
        task = a_request()
        batch = a_batch(replace(task, request_id=task.task_id))
        store.accept_batch(batch, enqueue=[], max_queue_depth=0)
        for lease in store.lease("w", batch.record.task_ids).leases:
            assert (lease.state, lease.batch_id, lease.request_id) == (LeaseState.LEASED, batch.batch_id, "")

    def test_a_leased_task_still_waits(self, store: TaskStore) -> None:
        task_id = leased(store, "w")
        assert status(store, task_id) is TaskStatus.QUEUED
        assert store.get_queue_stats(QUEUE).depth == 1

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

    def test_only_the_holder_renews(self, store: TaskStore) -> None:
        ids = [leased(store, "w1"), finished(store), accept(store), "nobody", leased(store, "w2")]
        assert store.renew("w2", ids) == [False, False, False, False, True]

    def test_a_canceled_task_is_not_the_holders_any_more(self, store: TaskStore) -> None:
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
        assert max(store.get_started_watermarks(QUEUE).values(), default=0) == 0
        first, second = leased(store, "w"), leased(store, "w")
        store.start("w", [second])
        high = max(store.get_started_watermarks(QUEUE).values(), default=0)
        store.start("w", [first])
        assert max(store.get_started_watermarks(QUEUE).values(), default=0) == high > 0
        store.start("w", [leased(store, "w")])
        assert max(store.get_started_watermarks(QUEUE).values(), default=0) > high
        assert max(store.get_started_watermarks("predict.other").values(), default=0) == 0

    def test_each_priority_and_queue_has_its_watermark_however_many_start_together(self, store: TaskStore) -> None:
        """The tasks have the acceptance numbers 1 to 6."""
        kinds = [(QUEUE, 0), (QUEUE, 9), (QUEUE, 0), ("predict.other", 0), (QUEUE, 0), (QUEUE, 9)]
        ids = [leased(store, "w", queue=queue, priority=priority) for queue, priority in kinds]
        assert store.start("w", [ids[4], ids[3], ids[1], ids[0]]) == [1] * 4
        assert store.get_started_watermarks(QUEUE) == {Order(0): 5, Order(9): 2}
        assert store.get_started_watermarks("predict.other") == {Order(0): 4}
        store.start("w", [ids[5], ids[2]])
        assert store.get_started_watermarks(QUEUE) == {Order(0): 5, Order(9): 6}


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
        assert store.get_queue_stats(QUEUE).depth == 0

    def test_a_stale_attempt_is_refused(self, store: TaskStore) -> None:
        task_id = running(store, "w")
        store.start("w", [task_id])
        assert not commit_one(store, "w", task_id, attempt=0)
        assert not commit_one(store, "w", task_id, attempt=1)
        assert not commit_one(store, "w", task_id, attempt=3)
        assert commit_one(store, "w", task_id, attempt=2)

    def test_another_holder_is_refused(self, store: TaskStore) -> None:
        task_id = running(store, "w1")
        assert not commit_one(store, "w2", task_id, attempt=1)
        assert status(store, task_id) is TaskStatus.RUNNING

    def test_nobody_commits_what_nobody_holds(self, store: TaskStore) -> None:
        assert not commit_one(store, "w", accept(store), attempt=0)
        assert not commit_one(store, "w", "nobody", attempt=0)

    def test_the_old_holder_is_refused_after_a_reap(self, world: StoreWorld) -> None:
        task_id = running(world.store, "w1")
        world.let_pass(LONGER_THAN_A_LEASE_S)
        world.store.reap("sweeper", max_attempts=3, limit=ALL)
        assert not commit_one(world.store, "w1", task_id, attempt=1)
        lease_one(world.store, "w2", task_id)
        assert not commit_one(world.store, "w1", task_id, attempt=1)
        assert world.store.start("w2", [task_id]) == [2]
        assert not commit_one(world.store, "w1", task_id, attempt=2)
        assert commit_one(world.store, "w2", task_id, attempt=2)

    def test_a_holder_that_was_slow_but_not_reaped_still_commits(self, world: StoreWorld) -> None:
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

    def test_with_a_start(self, store: TaskStore) -> None:
        """`commit` then `start`, one after the other: a task that is in both has ended before it could start."""
        ended, stale, waits = running(store, "w"), running(store, "w"), leased(store, "w")
        commits = [Commit(ended, 1, a_success()), Commit(stale, 7, a_success())]
        assert store.commit_and_start("w", commits, [waits, ended, "nobody"]) == ([True, False], [1, None, None])
        assert [status(store, task_id) for task_id in (ended, stale, waits)] == ["succeeded", "running", "running"]
        assert store.commit_and_start("w", [], []) == ([], [])

    def test_hundreds_in_one_call(self, store: TaskStore) -> None:
        ids = [accept(store) for _ in range(500)]
        assert {lease.state for lease in store.lease("w", ids).leases} == {LeaseState.LEASED}
        assert store.renew("w", ids) == [True] * 500
        assert store.start("w", ids) == [1] * 500
        assert store.commit("w", [Commit(task_id, 1, a_success()) for task_id in ids]) == [True] * 500
        assert store.get_queue_stats(QUEUE).depth == 0


class TestRelease:
    def test_what_was_given_back_waits_where_it_was(self, store: TaskStore) -> None:
        first, second = running(store, "w"), leased(store, "w")
        store.release("w", [first, second])
        assert [position(store, task_id) for task_id in (first, second)] == [0, 1]
        assert status(store, first) is TaskStatus.QUEUED
        assert lease_one(store, "other", first).state is LeaseState.LEASED
        assert not commit_one(store, "w", first, attempt=1)

    def test_only_the_holder_gives_back(self, store: TaskStore) -> None:
        task_id = running(store, "w")
        store.release("other", [task_id, "nobody"])
        assert status(store, task_id) is TaskStatus.RUNNING
        assert commit_one(store, "w", task_id, attempt=1)

    def test_what_has_ended_stays(self, store: TaskStore) -> None:
        task_id = finished(store)
        store.release("w", [task_id])
        assert status(store, task_id) is TaskStatus.SUCCEEDED
        assert store.get_queue_stats(QUEUE).depth == 0

    def test_a_release_is_no_loss(self, world: StoreWorld) -> None:
        task_id = accept(world.store)
        for _ in range(3):
            lease_one(world.store, "w", task_id)
            world.store.release("w", [task_id])
            world.let_pass(LONGER_THAN_A_LEASE_S)
            assert world.store.reap("sweeper", max_attempts=3, limit=ALL).requeue == ()
        assert not lease_one(world.store, "w", task_id).isolated

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
        assert lease_one(store, "w", task_id).isolated
        assert store.start("w", [task_id]) == [2]
        assert store.note_death("w", [task_id]) == [2]
        record = store.get(task_id)
        assert (record.attempts, record.deaths) == (2, 2)

    def test_the_holder_keeps_it(self, world: StoreWorld) -> None:
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


class TestSmallImages:
    """They are stored with the record until the task has ended."""

    def test_they_come_with_the_lease(self, store: TaskStore) -> None:
        small, large = accept(store, image=b"\x00\xff bytes"), accept(store)
        assert [lease.image for lease in store.lease("w1", [small, large]).leases] == [b"\x00\xff bytes", b""]

    def test_who_gets_no_lease_gets_no_image(self, store: TaskStore) -> None:
        task_id = accept(store, image=b"bytes")
        lease_one(store, "w1", task_id)
        assert lease_one(store, "w2", task_id).image == b""

    def test_they_come_again_after_a_loss(self, world: StoreWorld) -> None:
        task_id = accept(world.store, image=b"bytes")
        lease_one(world.store, "w1", task_id)
        world.let_pass(LONGER_THAN_A_LEASE_S)
        assert lease_one(world.store, "w2", task_id).image == b"bytes"
