"""Records that another program has changed: the calls for many tasks go on with the others."""

from __future__ import annotations

import pytest
import redis
from store_worlds import LONGER_THAN_A_LEASE_S, RESULT_TTL_S, StoreWorld, accept, commit_one, leased, running, status
from support.samples import QUEUE

from inference.domain import TaskStatus
from inference.errors import TaskNotFound
from inference.task_store import LeaseState
from inference.task_store.protocol import TaskFilter

CHANGES: dict[str, dict[str, str]] = {
    "no number": {"seq": "x"},
    "no time": {"created_at": "", "deadline_at": "soon"},
    "not finite": {"created_at": "nan", "deadline_at": "inf", "priority": "nan", "seq": "-inf"},
    "negative": {"deaths": "-1", "losses": "-1", "attempts": "-1"},
    "a webhook without its events": {"webhook": "x"},
    "only one field": {"": ""},
}


@pytest.fixture
def world(redis_client: redis.Redis, key_prefix: str) -> StoreWorld:
    return StoreWorld(redis_client, key_prefix)


@pytest.fixture(params=CHANGES)
def change(request: pytest.FixtureRequest) -> dict[str, str]:
    return CHANGES[request.param]


def spoil(client: redis.Redis, key_prefix: str, task_id: str, change: dict[str, str]) -> None:
    key = f"{key_prefix}:task:{task_id}"
    if "" in change:
        kept = client.hget(key, "status"), client.hget(key, "item")
        client.delete(key)
        change = dict(zip(("status", "item"), kept, strict=True))
    client.hset(key, mapping=change)


def test_the_others_are_leased_started_listed_and_committed(
    world: StoreWorld, redis_client: redis.Redis, key_prefix: str, change: dict[str, str]
) -> None:
    store = world.store
    odd, good = accept(store), accept(store)
    spoil(redis_client, key_prefix, odd, change)
    assert store.lease("w", [odd, good]).leases[1].state is LeaseState.LEASED
    assert store.start("w", [odd, good])[1] == 1
    store.release("w", [odd])
    assert good in store.list_tasks(TaskFilter()).task_ids
    assert commit_one(store, "w", good, attempt=1)


def test_the_sweeper_goes_on_with_the_others(
    world: StoreWorld, redis_client: redis.Redis, key_prefix: str, change: dict[str, str]
) -> None:
    store = world.store
    odd, good, waiting = running(store, "w"), running(store, "w"), accept(store)
    held = leased(store, "w")
    for task_id in (odd, held):
        spoil(redis_client, key_prefix, task_id, change)
    world.let_pass(LONGER_THAN_A_LEASE_S)
    assert good in store.reap("r", max_attempts=3, limit=100).requeue
    assert waiting in store.find_lost(QUEUE, up_to=None, grace_s=0, limit=100)
    world.let_pass(3600)
    store.expire_due(100)
    assert status(store, good) is TaskStatus.EXPIRED
    assert odd not in store.expire_due(100)
    with pytest.raises(TaskNotFound):
        store.cancel(accept_odd(world, redis_client, key_prefix))


def test_a_record_that_cannot_be_ended_does_not_stay_for_ever(
    world: StoreWorld, redis_client: redis.Redis, key_prefix: str, change: dict[str, str]
) -> None:
    odd = accept(world.store)
    spoil(redis_client, key_prefix, odd, change)
    world.let_pass(3601)
    world.store.expire_due(100)
    life_s = world.expires_in_s(odd)
    assert life_s is not None
    assert 0 < life_s <= RESULT_TTL_S
    assert redis_client.zscore(f"{key_prefix}:deadlines", odd) is None


def accept_odd(world: StoreWorld, redis_client: redis.Redis, key_prefix: str) -> str:
    task_id = accept(world.store)
    spoil(redis_client, key_prefix, task_id, {"seq": "x", "created_at": "x"})
    return task_id
