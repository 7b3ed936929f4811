"""Figures for acceptance, of every task store: how much there is to do, how fast it is done, and how much more there may be."""

from __future__ import annotations

import pytest
from store_worlds import ALL, LONGER_THAN_A_LEASE_S, StoreWorld, accept, commit_one, finished, leased, running
from support.samples import QUEUE, a_batch, a_failure, a_request, a_success

from inference.domain import ModelRef, Outcome, TaskStatus
from inference.errors import DeadlineExceeded, Overloaded
from inference.task_store import Commit, Enqueue, RateChange, Room, TaskStore


class TestLoad:
    def test_stats_say_how_fast_tasks_end_while_there_is_something_to_do(self, world: StoreWorld) -> None:
        ids = [running(world.store, "w") for _ in range(8)]
        world.let_pass(2)
        world.store.commit("w", [Commit(task_id, 1, a_success()) for task_id in ids])
        assert 8 / 4 <= _rate_per_s(world.store) <= 8 / 2  # in two seconds, or what this test takes longer
        assert world.store.get_queue_load("predict.other").busy_s == 0

    def test_stats_have_a_rate_while_there_is_something_to_do(self, store: TaskStore) -> None:
        finished(store)
        assert store.get_queue_stats(QUEUE).drain_rate_per_s == 0
        accept(store)
        assert store.get_queue_stats(QUEUE).drain_rate_per_s == pytest.approx(_rate_per_s(store))

    def test_an_idle_time_is_not_part_of_the_rate(self, world: StoreWorld) -> None:
        for _ in range(8):
            task_id = running(world.store, "w")
            world.let_pass(0.1)
            assert commit_one(world.store, "w", task_id, attempt=1)
            world.let_pass(60)
        assert 1 <= _rate_per_s(world.store) <= 10

    def test_a_rate_that_falls_is_known_after_some_batches(self, world: StoreWorld) -> None:
        for seconds in (0.1, 0.1, 0.1, 0.1, 0.8, 0.8, 0.8, 0.8):
            ids = [running(world.store, "w") for _ in range(8)]
            world.let_pass(seconds)
            world.store.commit("w", [Commit(task_id, 1, a_success()) for task_id in ids])
        assert 3 <= _rate_per_s(world.store) <= 16

    def test_the_rate_of_a_slow_model_counts_all_of_its_work(self, world: StoreWorld) -> None:
        for _ in range(8):
            _run_one(world, seconds=10)
        assert _rate_per_s(world.store) == pytest.approx(0.1, rel=0.1)

    def test_the_time_in_which_no_worker_was_there_is_not_part_of_the_rate(self, world: StoreWorld) -> None:
        task_id = accept(world.store)
        world.let_pass(60)
        world.store.lease("w", [task_id])
        world.store.start("w", [task_id])
        assert commit_one(world.store, "w", task_id, attempt=1)
        assert world.store.get_queue_load(QUEUE).busy_s <= 4

    def test_an_attempt_that_died_is_not_part_of_the_rate(self, world: StoreWorld) -> None:
        task_id = running(world.store, "w")
        world.let_pass(60)
        assert commit_one(world.store, "w", task_id, attempt=1, outcome=a_failure())
        assert world.store.get_queue_load(QUEUE).busy_s <= 4

    def test_tasks_that_never_ran_say_nothing_of_the_rate(self, store: TaskStore) -> None:
        task_id = leased(store, "w")
        assert commit_one(store, "w", task_id, attempt=0, outcome=a_failure())
        expired = Outcome.of_error(TaskStatus.EXPIRED, DeadlineExceeded("too late"))
        task_id = running(store, "w")
        assert commit_one(store, "w", task_id, attempt=1, outcome=expired)
        assert store.get_queue_load(QUEUE).busy_s == 0

    def test_batches_are_counted_by_minute(self, world: StoreWorld) -> None:
        for minutes, sizes in ((12, (8, 3)), (1, (1,)), (0, (2,))):
            for size in sizes:
                world.store.commit("w", [Commit(running(world.store, "w"), 1, a_success()) for _ in range(size)])
            world.let_pass(60 * minutes)
        fill = world.store.get_batch_fill(QUEUE)
        ages = [one.minutes_ago for one in fill]
        assert len(fill) >= 3  # more if a minute began meanwhile
        assert ages == sorted(ages, reverse=True)
        assert ages[0] - ages[-1] >= 13
        assert (sum(one.images for one in fill), sum(one.batches for one in fill)) == (14, 4)
        assert world.store.get_batch_fill("predict.other") == ()
        world.let_pass(60 * 16)
        assert world.store.get_batch_fill(QUEUE) == ()

    def test_a_new_minute_replaces_the_one_of_a_quarter_of_an_hour_ago(self, world: StoreWorld) -> None:
        assert commit_one(world.store, "w", running(world.store, "w"), attempt=1)
        world.let_pass(15 * 60)
        assert commit_one(world.store, "w", running(world.store, "w"), attempt=1)
        assert [(one.images, one.batches) for one in world.store.get_batch_fill(QUEUE)] == [(1, 1)]

    def test_a_load_counts_what_waits_and_what_runs(self, world: StoreWorld) -> None:
        store = world.store
        started = [running(store, "w") for _ in range(3)]
        leased(store, "w")
        accept(store)
        accept(store, queue="predict.other")
        assert _open(store) == (2, 3)
        assert commit_one(store, "w", started[0], attempt=1)
        store.cancel(started[1])
        assert _open(store) == (2, 1)
        store.release("w", [started[2]])
        assert _open(store) == (3, 0)
        world.let_pass(7200)
        store.expire_due(ALL)
        assert _open(store) == (0, 0)

    def test_a_task_whose_worker_died_waits_again(self, world: StoreWorld) -> None:
        running(world.store, "w")
        world.let_pass(LONGER_THAN_A_LEASE_S)
        world.store.reap("other", max_attempts=3, limit=ALL)
        assert _open(world.store) == (1, 0)

    def test_a_load_says_which_version_its_rate_is_of(self, store: TaskStore) -> None:
        assert store.get_queue_load(QUEUE).model is None
        for version in ("1", "2"):
            model = ModelRef("tiny", version, "sha256:00")
            assert commit_one(store, "w", running(store, "w"), attempt=1, outcome=a_success(model=model))
            load = store.get_queue_load(QUEUE)
            assert (load.model, load.ended, load.batches) == (model, 1, 1)  # of the other nothing is left

    def test_a_change_that_a_worker_expects_is_known_until_it_goes_on_no_longer(self, world: StoreWorld) -> None:
        store = world.store
        assert store.get_queue_load(QUEUE).change is None
        for share in (0.5, 0.25):
            change = RateChange(ModelRef("tiny", "2", "sha256:00"), share)
            store.expect_change(QUEUE, change)
            assert store.get_queue_load(QUEUE).change == change
        assert store.get_queue_load("predict.other").change is None
        world.let_pass(6)
        assert store.get_queue_load(QUEUE).change is None

    def test_a_failure_does_not_say_which_version_ran(self, store: TaskStore) -> None:
        finished(store)
        assert commit_one(store, "w", running(store, "w"), attempt=1, outcome=a_failure())
        assert 1 < store.get_queue_load(QUEUE).ended <= 2
        model = ModelRef("tiny", "2", "sha256:00")
        ids = [running(store, "w") for _ in range(2)]
        store.commit("w", [Commit(ids[0], 1, a_success(model=model)), Commit(ids[1], 1, a_failure())])
        load = store.get_queue_load(QUEUE)
        assert (load.model, load.ended) == (model, 2)

    def test_a_load_says_that_nothing_ends(self, world: StoreWorld) -> None:
        store = world.store
        finished(store)
        world.let_pass(30)
        assert store.get_queue_load(QUEUE).stalled_s == 0  # there was nothing to do
        accept(store)
        assert store.get_queue_load(QUEUE).stalled_s < 2
        world.let_pass(5)
        assert 4 <= store.get_queue_load(QUEUE).stalled_s <= 7

    def test_a_load_says_how_many_are_urgent(self, store: TaskStore) -> None:
        finished(store)
        assert store.get_queue_load(QUEUE).urgent_per_s == 0
        for _ in range(4):
            finished(store, priority=9)
        assert 1 <= store.get_queue_load(QUEUE).urgent_per_s <= 4

    @pytest.mark.parametrize(("priorities", "share"), [((9, 0, 0, 0), 0.25), ((0, 0, 0, 9), 0.25), ((9, 9, 9, 9), 1.0)])
    def test_urgent_tasks_of_a_slow_model_count_for_what_they_take(
        self, world: StoreWorld, priorities: tuple[int, ...], share: float
    ) -> None:
        for priority in priorities * 4:
            _run_one(world, seconds=10, priority=priority)
        load = world.store.get_queue_load(QUEUE)
        assert share * 0.5 <= load.urgent_per_s / _rate_per_s(world.store) <= share * 2

    def test_those_that_were_refused_come_again_as_fast_as_tasks_end(self, world: StoreWorld) -> None:
        store = world.store
        assert store.get_queue_load(QUEUE).returning == 0
        for _ in range(4):
            ids = [running(store, "w") for _ in range(10)]
            world.let_pass(1)
            store.commit("w", [Commit(task_id, 1, a_success()) for task_id in ids])
        assert store.get_queue_load(QUEUE, refused=30).returning == 30
        world.let_pass(2)
        assert 12 <= store.get_queue_load(QUEUE).returning <= 27
        assert store.get_queue_load("predict.other").returning == 0


class TestRoom:
    def test_a_task_is_refused_where_too_many_are_open(self, world: StoreWorld, key_prefix: str) -> None:
        store = world.store
        running(store, "w")
        accept(store)
        with pytest.raises(Overloaded):
            store.accept(a_request(), enqueue=Enqueue(key_prefix, b"message"), max_queue_depth=0, room=Room(2))
        assert world.pushed(key_prefix) == []
        assert store.accept(a_request(), enqueue=None, max_queue_depth=0, room=Room(3)).created

    def test_a_task_alone_always_goes_in(self, store: TaskStore) -> None:
        accept(store, queue="predict.other")
        assert store.accept(a_request(), enqueue=None, max_queue_depth=0, room=Room(0)).created
        with pytest.raises(Overloaded):
            store.accept(a_request(), enqueue=None, max_queue_depth=0, room=Room(0))

    def test_a_task_with_a_priority_passes_those_without(self, store: TaskStore) -> None:
        for _ in range(20):
            accept(store)
        room = Room(8, window=4)
        for _ in range(4):
            assert store.accept(a_request(priority=9), enqueue=None, max_queue_depth=0, room=room).created
        with pytest.raises(Overloaded):  # four that workers may hold, and four of its own
            store.accept(a_request(priority=9), enqueue=None, max_queue_depth=0, room=room)
        with pytest.raises(Overloaded):
            store.accept(a_request(priority=1), enqueue=None, max_queue_depth=0, room=room)

    def test_what_passes_is_counted_until_it_starts(self, store: TaskStore) -> None:
        accept(store)
        first, second = accept(store, priority=9), accept(store, priority=9)
        withdrawn = accept(store, priority=9)
        store.lease("w", [first])
        store.start("w", [first])
        store.release("w", [first])  # it waits again
        store.cancel(second)
        store.withdraw(withdrawn)
        assert store.accept(a_request(priority=9), enqueue=None, max_queue_depth=0, room=Room(2)).created
        with pytest.raises(Overloaded):
            store.accept(a_request(priority=9), enqueue=None, max_queue_depth=0, room=Room(2))

    def test_a_batch_is_refused_as_a_whole(self, store: TaskStore) -> None:
        accept(store)
        batch = a_batch(a_request(), a_request(priority=9), a_request(queue="predict.other"))
        with pytest.raises(Overloaded):
            store.accept_batch(batch, enqueue=[], max_queue_depth=0, rooms={QUEUE: Room(2)})
        assert _open(store) == (1, 0)
        assert store.accept_batch(batch, enqueue=[], max_queue_depth=0, rooms={QUEUE: Room(3)}).created


def _run_one(world: StoreWorld, *, seconds: float, priority: int = 0) -> None:
    task_id = running(world.store, "w", priority=priority)
    world.let_pass(seconds)
    assert commit_one(world.store, "w", task_id, attempt=1)


def _open(store: TaskStore) -> tuple[int, int]:
    load = store.get_queue_load(QUEUE)
    return load.waiting, load.running


def _rate_per_s(store: TaskStore) -> float:
    load = store.get_queue_load(QUEUE)
    return load.ended / load.busy_s
