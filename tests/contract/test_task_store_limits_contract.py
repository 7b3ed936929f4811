"""Limits of owners: a request over one is refused, uses nothing up, and nothing else is refused."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from redis_tasks import start
from store_worlds import ALL, LEASE_S, StoreWorld, commit_one
from support.redis_keys import undocumented
from support.samples import QUEUE, a_batch, a_request

from inference.access import Limits, OwnerUse
from inference.errors import IdempotencyConflict, Overloaded, QuotaExceeded, RateLimited
from inference.task_store import Accepted, AcceptedBatch, Room

DAY_S = 86_400.0


def accept(world: StoreWorld, owner: str = "lab", **options: Any) -> Accepted:
    limits, depth = options.pop("limits", Limits()), options.pop("max_queue_depth", 0)
    room = options.pop("room", None)
    request = a_request(owner=owner, **options)
    return world.store.accept(request, enqueue=None, max_queue_depth=depth, room=room, limits=limits)


def accept_batch(world: StoreWorld, count: int, *, limits: Limits, image_bytes: int = 0) -> AcceptedBatch:
    tasks = (a_request(owner="lab", image_bytes=image_bytes) for _ in range(count))
    return world.store.accept_batch(a_batch(*tasks, owner="lab"), enqueue=[], max_queue_depth=0, limits=limits)


def use_of(world: StoreWorld, owner: str = "lab") -> OwnerUse:
    return world.store.get_owner_use(owner)


class TestRate:
    #: so slow that no test takes as long as the space between two requests
    SLOW = Limits(requests_per_s=0.01, burst=2)

    def test_a_burst_passes_and_one_more_does_not(self, world: StoreWorld) -> None:
        for _ in range(2):
            accept(world, limits=self.SLOW)
        with pytest.raises(RateLimited) as refusal:
            accept(world, limits=self.SLOW)
        assert refusal.value.retry_after_s is not None
        assert 0 < refusal.value.retry_after_s <= 100
        assert use_of(world).open_tasks == use_of(world).images_today == 2

    def test_a_request_passes_when_retry_after_is_over(self, world: StoreWorld) -> None:
        for _ in range(2):
            accept(world, limits=self.SLOW)
        for _ in range(3):
            with pytest.raises(RateLimited) as refusal:
                accept(world, limits=self.SLOW)
            world.let_pass(refusal.value.retry_after_s or 0)
            accept(world, limits=self.SLOW)

    def test_a_pause_gives_no_more_than_the_burst(self, world: StoreWorld) -> None:
        accept(world, limits=self.SLOW)
        world.let_pass(100_000)
        for _ in range(2):
            accept(world, limits=self.SLOW)
        with pytest.raises(RateLimited):
            accept(world, limits=self.SLOW)

    def test_the_space_is_exact(self, world: StoreWorld) -> None:
        """Each of 300 requests a second takes 3.33 ms: 300 take a second, and no rounding adds up."""
        limits = Limits(requests_per_s=300, burst=1000)
        for _ in range(300):
            accepted = accept(world, limits=limits)
        assert accepted.use is not None
        assert accepted.use.due_in_s <= 1.001

    def test_a_batch_is_one_request(self, world: StoreWorld) -> None:
        for _ in range(2):
            accept_batch(world, 5, limits=self.SLOW)
        with pytest.raises(RateLimited):
            accept_batch(world, 1, limits=self.SLOW)

    def test_another_owner_has_a_rate_of_its_own(self, world: StoreWorld) -> None:
        for owner in ("lab", "lab", "shop", "shop"):
            accept(world, owner, limits=self.SLOW)
        with pytest.raises(RateLimited):
            accept(world, "shop", limits=self.SLOW)

    def test_the_left_requests_are_those_that_pass(self, world: StoreWorld) -> None:
        limits = Limits(requests_per_s=0.01, burst=3)
        assert limits.rate is not None
        for left in (2, 1, 0):
            accepted = accept(world, limits=limits)
            assert accepted.use is not None
            assert limits.rate.left(accepted.use.due_in_s) == left


class TestQuotas:
    def test_images_of_a_day(self, world: StoreWorld) -> None:
        limits = Limits(images_per_day=5)
        accept_batch(world, 3, limits=limits)
        with pytest.raises(QuotaExceeded) as refusal:
            accept_batch(world, 3, limits=limits)
        assert refusal.value.use is not None
        assert refusal.value.retry_after_s == refusal.value.use.day_ends_in_s
        assert 0 < refusal.value.use.day_ends_in_s <= DAY_S
        accept_batch(world, 2, limits=limits)
        with pytest.raises(QuotaExceeded):
            accept(world, limits=limits)

    def test_bytes_of_a_day(self, world: StoreWorld) -> None:
        limits = Limits(bytes_per_day=1000)
        accept(world, limits=limits, image_bytes=900)
        with pytest.raises(QuotaExceeded, match="bytes"):
            accept_batch(world, 2, limits=limits, image_bytes=51)
        accept_batch(world, 2, limits=limits, image_bytes=50)
        assert use_of(world).bytes_today == 1000

    def test_what_is_withdrawn_is_given_back_once(self, world: StoreWorld) -> None:
        limits = Limits(images_per_day=5, bytes_per_day=1000)
        kept = accept(world, limits=limits, image_bytes=100)
        task_id = accept(world, limits=limits, image_bytes=200).task_id
        batch_id = accept_batch(world, 3, limits=limits, image_bytes=150).batch_id
        for _ in range(2):  # the first answer may get lost
            assert world.store.withdraw(task_id, image_bytes=200)
            assert world.store.withdraw_batch(batch_id, image_bytes=450)
        use = use_of(world)
        assert (use.images_today, use.bytes_today, use.open_tasks) == (1, 100, 1)
        assert world.store.get(kept.task_id)
        accept_batch(world, 4, limits=limits, image_bytes=225)

    def test_what_was_accepted_yesterday_is_not_given_back_today(self, world: StoreWorld) -> None:
        task_id = accept(world, image_bytes=200, deadline_s=3 * DAY_S).task_id
        world.let_pass(DAY_S)
        accept(world, image_bytes=100)
        assert world.store.withdraw(task_id, image_bytes=200)
        assert (use_of(world).images_today, use_of(world).bytes_today) == (1, 100)

    def test_the_next_day_begins_anew(self, world: StoreWorld) -> None:
        limits = Limits(images_per_day=1)
        accept(world, limits=limits)
        with pytest.raises(QuotaExceeded):
            accept(world, limits=limits)
        world.let_pass(DAY_S)
        assert use_of(world).images_today == 0
        accept(world, limits=limits)
        assert use_of(world).images_today == 1

    def test_tasks_that_have_not_ended(self, world: StoreWorld) -> None:
        limits = Limits(waiting_tasks=2)
        first = accept(world, limits=limits).task_id
        accept(world, limits=limits)
        with pytest.raises(QuotaExceeded, match="2 tasks"):
            accept(world, limits=limits)
        world.store.lease("w", [first])
        world.store.start("w", [first])
        with pytest.raises(QuotaExceeded):  # it runs, and has not ended
            accept(world, limits=limits)
        assert commit_one(world.store, "w", first, attempt=1)
        accept(world, limits=limits)


class TestWhatUsesNothingUp:
    LIMITS = Limits(requests_per_s=0.01, burst=10, images_per_day=100, bytes_per_day=10_000, waiting_tasks=100)

    def left(self, world: StoreWorld) -> tuple[int, int, int, int]:
        use, rate = use_of(world), self.LIMITS.rate
        assert rate is not None
        return rate.left(use.due_in_s), use.images_today, use.bytes_today, use.open_tasks

    def test_a_request_that_is_refused_for_another_reason(self, world: StoreWorld) -> None:
        accept(world, limits=self.LIMITS, image_bytes=10, idempotency_key="k", fingerprint="f")
        before = self.left(world)
        assert before == (9, 1, 10, 1)
        with pytest.raises(Overloaded):
            accept(world, limits=self.LIMITS, image_bytes=10, max_queue_depth=1)
        with pytest.raises(Overloaded):
            accept(world, limits=self.LIMITS, image_bytes=10, room=Room(1))
        with pytest.raises(IdempotencyConflict):
            accept(world, limits=self.LIMITS, image_bytes=10, idempotency_key="k", fingerprint="g")
        with pytest.raises(QuotaExceeded):
            accept(world, limits=self.LIMITS, image_bytes=10_000)
        assert self.left(world) == before

    def test_a_repeated_request(self, world: StoreWorld) -> None:
        request = a_request(owner="lab", idempotency_key="k", fingerprint="f", image_bytes=10)
        for _ in range(2):
            world.store.accept(request, enqueue=None, max_queue_depth=0, limits=self.LIMITS)
        accept(world, limits=self.LIMITS, idempotency_key="k", fingerprint="f")
        assert self.left(world) == (9, 1, 10, 1)

    def test_a_request_whose_owner_is_at_a_limit_finds_its_task_again(self, world: StoreWorld) -> None:
        limits = Limits(requests_per_s=0.01, burst=1, images_per_day=1, waiting_tasks=1)
        first = accept(world, limits=limits, idempotency_key="k", fingerprint="f").task_id
        assert accept(world, limits=limits, idempotency_key="k", fingerprint="f").task_id == first


def test_without_an_owner_nothing_is_counted_and_no_limit_holds(
    world: StoreWorld, redis_client: redis.Redis, key_prefix: str
) -> None:
    for _ in range(3):
        accepted = accept(world, "", limits=Limits(requests_per_s=0.01, images_per_day=1, waiting_tasks=1))
        assert accepted.created
        assert accepted.use is None
    assert [key for kind in ("owner", "open", "shares") for key in redis_client.keys(f"{key_prefix}:{kind}*")] == []


def test_counts_of_lost_records_do_not_stay(world: StoreWorld, redis_client: redis.Redis, key_prefix: str) -> None:
    """Redis may evict records: then nothing can say whose they were."""
    task_id = accept(world).task_id
    redis_client.delete(f"{key_prefix}:task:{task_id}")
    world.let_pass(4000)
    world.store.expire_due(ALL)
    world.store.expire_due(ALL)
    world.store.forget_gone(QUEUE, limit=ALL)
    assert use_of(world).open_tasks == 0
    assert redis_client.exists(f"{key_prefix}:shares:{QUEUE}") == 0


class TestShares:
    """Owners take turns: an owner waits only for tasks of other owners that can run before its own."""

    @pytest.fixture
    def world(self, redis_client: redis.Redis, key_prefix: str) -> StoreWorld:
        return StoreWorld(redis_client, key_prefix, has_turns=True)

    def test_a_flood_of_one_leaves_room_for_the_others(self, world: StoreWorld) -> None:
        room = Room(20)
        for _ in range(20):
            accept(world, "flood", room=room)
        with pytest.raises(Overloaded):
            accept(world, "flood", room=room)
        for _ in range(10):  # each with as many of the flood before it
            accept(world, "lab", room=room)
        with pytest.raises(Overloaded):
            accept(world, "lab", room=room)

    def test_what_workers_hold_comes_before(self, world: StoreWorld) -> None:
        for _ in range(20):
            accept(world, "flood")
        with pytest.raises(Overloaded):
            accept(world, "lab", room=Room(10, window=10))
        accept(world, "lab", room=Room(12, window=10))

    def test_a_limit_of_the_queue_is_parted_too(self, world: StoreWorld) -> None:
        for _ in range(6):
            accept(world, "flood", max_queue_depth=6)
        for _ in range(3):
            accept(world, "lab", max_queue_depth=6)
        for owner in ("flood", "lab"):
            with pytest.raises(Overloaded):
                accept(world, owner, max_queue_depth=6)

    def test_a_place_is_counted_by_turns(self, world: StoreWorld) -> None:
        flood = [accept(world, "flood").task_id for _ in range(20)]
        mine = accept(world, "lab").task_id
        places = world.store.get_places({QUEUE: [flood[5], mine]})
        assert (places[flood[5]].position, places[mine].position) == (5, 1)

    def test_figures_for_admission(self, world: StoreWorld) -> None:
        for owner in ("flood", "flood", "flood", "flood", "lab"):
            accept(world, owner)
        load = world.store.get_queue_load(QUEUE)
        assert dict(load.shares) == {"flood": 4, "lab": 1}
        assert [load.ahead_of(owner, 1, window=0) for owner in ("flood", "lab", "new", "")] == [5, 3, 2, 5]

    def test_without_turns_all_waiting_tasks_are_before(self, redis_client: redis.Redis, key_prefix: str) -> None:
        world = StoreWorld(redis_client, f"{key_prefix}-fifo")
        for _ in range(20):
            accept(world, "flood")
        with pytest.raises(Overloaded):
            accept(world, "lab", room=Room(20))
        mine = accept(world, "lab").task_id
        assert world.store.get_places({QUEUE: [mine]})[mine].position == 20
        assert undocumented(redis_client, f"{key_prefix}-fifo", f"{key_prefix}-fifo:*") == []

    def test_tasks_that_wait_again_count_again(self, world: StoreWorld) -> None:
        ids = [accept(world, "lab").task_id for _ in range(3)]
        start(world.store, "w", ids[:2])  # type: ignore[arg-type] # a TaskStore does as well
        assert dict(world.store.get_queue_load(QUEUE).shares) == {"lab": 1}
        world.store.release("w", ids[:1])
        assert dict(world.store.get_queue_load(QUEUE).shares) == {"lab": 2}
        world.let_pass(LEASE_S + 1)
        world.store.reap("sweeper", max_attempts=3, limit=ALL)
        assert dict(world.store.get_queue_load(QUEUE).shares) == {"lab": 3}
        assert use_of(world).open_tasks == 3
