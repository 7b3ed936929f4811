"""Contract of task stores for maintenance: reaping, deadlines, lost messages, dead letters, the outbox."""

from __future__ import annotations

import pytest
from store_worlds import (
    ALL,
    LONGER_THAN_A_LEASE_S,
    RESULT_TTL_S,
    StoreWorld,
    accept,
    bury_one,
    commit_one,
    finished,
    lease_one,
    leased,
    position,
    running,
    status,
)
from support.samples import QUEUE, a_failure

from inference.domain import TaskStatus
from inference.errors import ServiceUnavailable
from inference.task_store import LeaseState, Order, TaskStore


class TestReap:
    def test_a_live_lease_is_left_alone(self, store: TaskStore) -> None:
        leased(store, "w")
        running(store, "w")
        reaped = store.reap("sweeper", max_attempts=3, limit=ALL)
        assert (reaped.requeue, reaped.exhausted) == ((), ())

    def test_a_prefetched_task_is_queued_again_and_alone_after_the_second_loss(self, world: StoreWorld) -> None:
        task_id = accept(world.store)
        for is_alone in (False, False, True):
            assert lease_one(world.store, "w", task_id).isolated is is_alone
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
        assert [position(world.store, one) for one in (waiting_before, task_id)] == [0, 1]
        assert lease_one(world.store, "w", task_id).isolated

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
        assert store.get_queue_stats(QUEUE).depth == 1
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
        watermark = max(world.store.get_started_watermarks(QUEUE).values(), default=0)
        assert world.store.find_lost(QUEUE, up_to={Order(0): watermark}, grace_s=5, limit=ALL) == [overtaken]
        assert world.store.find_lost(QUEUE, up_to={Order(0): 0}, grace_s=5, limit=ALL) == []

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
        assert world.store.list_dead_letters(ALL) == ids
        assert world.store.list_dead_letters(2) == ids[:2]
        assert world.store.count_dead_letters() == 3
        world.let_pass(RESULT_TTL_S * 10)
        assert [status(world.store, task_id) for task_id in ids] == [TaskStatus.FAILED] * 3

    def test_a_discarded_one_expires(self, world: StoreWorld) -> None:
        task_id = running(world.store, "w")
        bury_one(world.store, "w", task_id, attempt=1)
        assert world.expires_in_s(task_id) is None
        assert world.store.discard_dead_letter(task_id)
        assert world.store.list_dead_letters(ALL) == []
        assert world.store.count_dead_letters() == 0
        assert not world.store.discard_dead_letter(task_id)
        world.let_pass(RESULT_TTL_S + 1)
        assert world.store.get_many([task_id]) == [None]

    def test_what_is_none_cannot_be_discarded(self, world: StoreWorld) -> None:
        assert not world.store.discard_dead_letter("nobody")
        task_id = accept(world.store)
        assert not world.store.discard_dead_letter(task_id)
        assert world.expires_in_s(task_id) is None

    def test_a_refused_commit_makes_no_dead_letter(self, store: TaskStore) -> None:
        task_id = running(store, "w")
        store.cancel(task_id)
        assert not bury_one(store, "w", task_id, attempt=1)
        assert store.list_dead_letters(ALL) == []

    def test_to_give_up_a_delivery_leaves_the_others(self, world: StoreWorld) -> None:
        task_id = finished(world.store, sinks=("jsonl", "kafka"))
        refuse(world, "kafka", task_id)
        assert world.store.discard_dead_letter(task_id)
        assert world.store.get(task_id).deliveries == {"jsonl": "pending", "kafka": "discarded"}
        world.let_pass(RESULT_TTL_S * 10)
        assert world.expires_in_s(task_id) is None
        world.store.confirm_deliveries("jsonl", world.outbox("jsonl"))
        assert world.expires_in_s(task_id) is not None

    def test_each_sink_that_refuses_is_given_up_by_itself(self, world: StoreWorld) -> None:
        task_id = finished(world.store, sinks=("jsonl", "kafka"))
        for sink, is_last in (("kafka", False), ("jsonl", True)):
            refuse(world, sink, task_id)
            assert world.store.discard_dead_letter(task_id)
            assert (world.expires_in_s(task_id) is not None) == is_last

    def test_what_was_given_up_expires_where_every_other_sink_has_it(self, world: StoreWorld) -> None:
        task_id = finished(world.store, sinks=("jsonl", "kafka"))
        world.store.confirm_deliveries("jsonl", world.outbox("jsonl"))
        refuse(world, "kafka", task_id)
        assert world.expires_in_s(task_id) is None
        world.store.discard_dead_letter(task_id)
        assert world.expires_in_s(task_id) is not None

    def test_what_was_given_up_is_not_delivered_again(self, world: StoreWorld) -> None:
        task_id = finished(world.store, sinks=("jsonl", "kafka"))
        refuse(world, "kafka", task_id)
        world.store.discard_dead_letter(task_id)
        assert world.store.redeliver(task_id) == 0
        assert world.outbox("kafka") == []

    def test_what_was_refused_is_delivered_again(self, world: StoreWorld) -> None:
        task_id = finished(world.store, sinks=("jsonl", "kafka"))
        refuse(world, "kafka", task_id)
        assert world.store.redeliver(task_id) == 1
        record = world.store.get(task_id)
        assert (record.deliveries, record.refusals) == ({"jsonl": "pending", "kafka": "pending"}, {})
        assert [waiting for _, waiting in world.outbox("kafka")] == [task_id]
        assert world.store.list_dead_letters(ALL) == []

    def test_a_dead_letter_goes_to_no_sink(self, world: StoreWorld) -> None:
        task_id = running(world.store, "w", sinks=("jsonl",))
        bury_one(world.store, "w", task_id, attempt=1)
        assert world.outbox("jsonl") == []


def refuse(world: StoreWorld, sink: str, task_id: str) -> None:
    ((entry_id, waiting),) = world.outbox(sink)
    assert waiting == task_id
    world.store.refuse_deliveries(sink, [(entry_id, task_id, "too large")])
    assert world.store.list_dead_letters(ALL) == [task_id]


class TestLongQueues:
    """A call of `find_lost` looks at so many tasks; those that follow look at the rest."""

    @pytest.fixture
    def world(self, world: StoreWorld) -> StoreWorld:
        """Twelve tasks wait; a worker holds all but the last, whose message is lost."""
        self.ids = [accept(world.store, priority=9 * (number % 2)) for number in range(12)]
        world.let_pass(60)
        assert len(world.store.lease("w", self.ids[:-1]).leases) == 11
        return world

    @staticmethod
    def find(world: StoreWorld, up_to: dict[Order, int] | None = None) -> list[str]:
        return world.store.find_lost(QUEUE, up_to=up_to, grace_s=5, limit=5)

    def test_the_last_of_them_is_found(self, world: StoreWorld) -> None:
        assert [self.find(world) for _ in range(3)] == [[], [], [self.ids[11]]]

    def test_after_the_last_comes_the_oldest_again(self, world: StoreWorld) -> None:
        for _ in range(3):
            self.find(world)
        world.store.release("w", self.ids[:1])
        world.let_pass(6)
        world.store.renew("w", self.ids[1:11])
        assert [self.find(world) for _ in range(3)] == [[self.ids[0]], [], [self.ids[11]]]

    def test_a_look_at_those_that_were_overtaken_goes_its_own_way(self, world: StoreWorld) -> None:
        """The broker has messages, and then has none, in turn: neither kind of look begins anew because of the other."""
        assert [self.find(world, kind) for kind in (None, {Order(9): 12}, None, {Order(9): 12})] == [[]] * 4
        assert self.find(world, {Order(9): 12}) == [self.ids[11]]
        assert self.find(world) == [], "it was queued again a moment ago"

    def test_those_that_wait_by_right_hide_none_behind_them(self, world: StoreWorld) -> None:
        """Many tasks of the usual priority: only what was accepted as urgent was overtaken."""
        world.store.release("w", self.ids[:11:2])
        world.let_pass(6)
        world.store.renew("w", self.ids[1:11:2])
        assert [self.find(world, {Order(9): 12}) for _ in range(3)] == [[], [], [self.ids[11]]]

    def test_another_queue_has_a_place_of_its_own(self, world: StoreWorld) -> None:
        other = accept(world.store, queue="predict.other")
        world.let_pass(6)
        world.store.renew("w", self.ids[:11])
        self.find(world)
        assert world.store.find_lost("predict.other", up_to=None, grace_s=5, limit=5) == [other]


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
        world.store.confirm_deliveries("jsonl", world.outbox("jsonl"))
        assert world.store.get(task_id).deliveries == {"jsonl": "delivered", "kafka": "pending"}
        world.let_pass(RESULT_TTL_S * 10)
        assert world.expires_in_s(task_id) is None
        world.store.confirm_deliveries("kafka", world.outbox("kafka"))
        expires_in_s = world.expires_in_s(task_id)
        assert expires_in_s is not None
        assert 0 < expires_in_s <= RESULT_TTL_S
        assert (world.outbox("jsonl"), world.outbox("kafka")) == ([], [])
        world.let_pass(RESULT_TTL_S + 1)
        assert world.store.get_many([task_id]) == [None]

    def test_a_delivery_that_is_confirmed_twice_counts_once(self, world: StoreWorld) -> None:
        task_id = finished(world.store, sinks=("jsonl", "kafka"))
        entries = world.outbox("jsonl")
        world.store.confirm_deliveries("jsonl", entries)
        world.store.confirm_deliveries("jsonl", entries)
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
        world.store.confirm_deliveries("jsonl", [(entry_id, "nobody")])
        assert world.outbox("jsonl") == []

    def test_other_entries_stay(self, world: StoreWorld) -> None:
        finished(world.store, sinks=("jsonl",))
        second = finished(world.store, sinks=("jsonl",))
        world.store.confirm_deliveries("jsonl", world.outbox("jsonl")[:1])
        assert [task_id for _, task_id in world.outbox("jsonl")] == [second]


def test_a_ping_says_whether_the_store_is_up(world: StoreWorld) -> None:
    world.store.ping()
    world.take_down()
    with pytest.raises(ServiceUnavailable, match="task store"):
        world.store.ping()
