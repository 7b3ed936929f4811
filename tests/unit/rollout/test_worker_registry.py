"""Registry of live workers: their announcements; a killed one is forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis
from support.redis_server import client_of_nobody
from support.waiting import until

from inference.errors import ServiceUnavailable
from inference.rollout.worker_registry import ANNOUNCE_INTERVAL_S, ANNOUNCEMENT_TTL_S, LoadedModelInfo, WorkerInfo, WorkerPresence

TINY = LoadedModelInfo("tiny", "1", "sha256:00", predict_ms=0.55)


@pytest.fixture
def presence(redis_client: redis.Redis, key_prefix: str) -> WorkerPresence:
    return WorkerPresence(redis_client, key_prefix)


def test_nobody_is_there_at_first(presence: WorkerPresence) -> None:
    assert presence.workers() == []


def test_workers_say_what_they_have_loaded(presence: WorkerPresence) -> None:
    workers = [WorkerInfo("host:1:ab", (TINY,)), WorkerInfo("host:2:größer", ())]
    for worker in workers:
        presence.announce(worker)
    assert sorted(presence.workers(), key=lambda worker: worker.worker) == workers


def test_the_latest_announcement_counts(presence: WorkerPresence) -> None:
    presence.announce(WorkerInfo("w", ()))
    presence.announce(WorkerInfo("w", (TINY,)))
    assert presence.workers() == [WorkerInfo("w", (TINY,))]


@pytest.mark.parametrize("odd", [b"", b"no JSON", b"{}", b'{"worker": "w", "models": [{"name": "tiny"}]}', b"[]"])
def test_an_announcement_that_cannot_be_read_hides_no_other(
    presence: WorkerPresence, redis_client: redis.Redis, key_prefix: str, odd: bytes
) -> None:
    for worker in ("w1", "w2"):
        presence.announce(WorkerInfo(worker, (TINY,)))
    redis_client.set(f"{key_prefix}:worker:w1", odd)
    assert presence.workers() == [WorkerInfo("w2", (TINY,))]


def test_a_worker_that_leaves_is_gone_at_once(presence: WorkerPresence) -> None:
    presence.announce(WorkerInfo("w1", ()))
    presence.announce(WorkerInfo("w2", ()))
    presence.leave("w1")
    presence.leave("w1")
    assert presence.workers() == [WorkerInfo("w2", ())]


def test_a_killed_worker_is_forgotten(presence: WorkerPresence, redis_client: redis.Redis, key_prefix: str) -> None:
    presence.announce(WorkerInfo("w", ()))
    (key,) = redis_client.scan_iter(match=f"{key_prefix}:worker:*", count=1000)
    ttl_ms: Any = redis_client.pttl(key)
    assert 0 < ttl_ms <= ANNOUNCEMENT_TTL_S * 1000
    assert ANNOUNCEMENT_TTL_S > 2 * ANNOUNCE_INTERVAL_S, "one late announcement is no death"
    redis_client.pexpire(key, 1)
    until(lambda: presence.workers() == [], "the end of the announcement")


def test_workers_of_another_prefix_are_not_seen(presence: WorkerPresence, redis_client: redis.Redis, key_prefix: str) -> None:
    WorkerPresence(redis_client, f"{key_prefix}-other").announce(WorkerInfo("w", ()))
    assert presence.workers() == []


def test_a_store_that_is_down_is_unavailable(tmp_path: Path) -> None:
    with client_of_nobody(tmp_path) as client:
        presence = WorkerPresence(client, "prefix")
        for call in (presence.workers, lambda: presence.announce(WorkerInfo("w", ())), lambda: presence.leave("w")):
            with pytest.raises(ServiceUnavailable):
                call()
