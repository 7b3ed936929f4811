"""Lives of records, noted by each process that lets them end: processes and yesterday's settings may differ."""

from __future__ import annotations

import time

import pytest
import redis
from support.samples import a_request

from inference.task_store.redis_store import RedisTaskStore, StorePolicy

HOUR_S, DAY_S = 3600.0, 86_400.0


class Rig:
    def __init__(self, client: redis.Redis, key_prefix: str) -> None:
        self.client = client
        self._prefix = key_prefix

    def store(self, result_ttl_s: float) -> RedisTaskStore:
        return RedisTaskStore(self.client, StorePolicy(self._prefix, result_ttl_s=result_ttl_s))

    def end_a_task(self, result_ttl_s: float) -> None:
        store = self.store(result_ttl_s)
        store.cancel(store.accept(a_request(), enqueue=None, max_queue_depth=0).task_id)

    def shortest_s(self) -> float:
        return self.store(10 * DAY_S).get_record_life().shortest_s

    def pass_s(self, seconds: float) -> None:
        """Move the noted time into the past."""
        key = f"{self._prefix}:seq:lives"
        noted = {member: score - 1000 * seconds for member, score in self.client.zrange(key, 0, -1, withscores=True)}
        self.client.zadd(key, noted)


@pytest.fixture
def rig(redis_client: redis.Redis, key_prefix: str) -> Rig:
    return Rig(redis_client, key_prefix)


def test_the_shortest_that_anybody_gave_a_record_counts(rig: Rig) -> None:
    for life_s in (DAY_S, HOUR_S, 2 * HOUR_S):
        rig.end_a_task(life_s)
    assert rig.shortest_s() == HOUR_S


def test_a_day_after_its_last_use_a_shorter_one_is_forgotten(rig: Rig) -> None:
    rig.end_a_task(60)
    rig.pass_s(0.9 * DAY_S)
    rig.end_a_task(HOUR_S)
    assert rig.shortest_s() == 60
    rig.pass_s(0.2 * DAY_S)
    assert rig.shortest_s() == HOUR_S
    rig.pass_s(DAY_S + HOUR_S)
    assert rig.shortest_s() == DAY_S


def test_what_is_used_goes_on_counting(rig: Rig) -> None:
    for _ in range(5):
        rig.end_a_task(60)
        rig.pass_s(0.5 * DAY_S)
    assert rig.shortest_s() == 60


def test_it_says_since_when_that_is_noted(rig: Rig) -> None:
    before_s = time.time()
    since_s = rig.store(DAY_S).get_record_life().since_s
    assert before_s - 1 <= since_s <= time.time() + 1
    time.sleep(0.01)
    assert rig.store(DAY_S).get_record_life().since_s == since_s
