"""Task store with a test's surroundings, and the steps that most tests begin with."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import redis
from support.redis_server import client_of_nobody
from support.samples import QUEUE, a_failure, a_request, a_success
from support.time_travel import let_time_pass

from inference.domain import Outcome, TaskStatus
from inference.task_store import Commit, Lease, LeaseState, TaskStore
from inference.task_store.redis_store import RedisTaskStore, StorePolicy

LEASE_S = 10.0
RESULT_TTL_S = 600.0
IDEMPOTENCY_TTL_S = 300.0
LONGER_THAN_A_LEASE_S = LEASE_S + 1
#: a limit that no test reaches
ALL = 1000


class StoreWorld:
    """The store on a Redis server of the tests, under a key prefix of its own."""

    def __init__(self, client: redis.Redis, key_prefix: str, *, has_turns: bool = False) -> None:
        self._redis = client
        self._prefix = key_prefix
        self.store: TaskStore = RedisTaskStore(client, dataclasses.replace(_policy(key_prefix), has_turns=has_turns))

    def let_pass(self, seconds: float) -> None:
        """Time passes, for the store and for all that is in it."""
        let_time_pass(self._redis, self._prefix, seconds)

    def expires_in_s(self, task_id: str) -> float | None:
        """Seconds until the record is forgotten; None while it is kept."""
        ttl_ms: Any = self._redis.pttl(f"{self._prefix}:task:{task_id}")
        assert ttl_ms != -2, "there is no such record"
        return None if ttl_ms == -1 else ttl_ms / 1000

    def outbox(self, sink: str) -> list[tuple[bytes, str]]:
        """(entry id, task id), oldest first."""
        entries: Any = self._redis.xrange(f"{self._prefix}:outbox:{sink}")
        return [(entry_id, fields[b"task_id"].decode()) for entry_id, fields in entries]

    def pushed(self, list_key: str) -> list[bytes]:
        """Payloads that `accept` has pushed, oldest first."""
        payloads: Any = self._redis.lrange(list_key, 0, -1)
        return list(reversed(payloads))

    def take_down(self) -> None:
        """The store does not answer any more."""
        self.store = RedisTaskStore(client_of_nobody(Path("/nowhere")), _policy(self._prefix))


def _policy(key_prefix: str) -> StorePolicy:
    return StorePolicy(key_prefix, lease_s=LEASE_S, result_ttl_s=RESULT_TTL_S, idempotency_ttl_s=IDEMPOTENCY_TTL_S)


def accept(store: TaskStore, **changes: Any) -> str:
    """A new task; gives its id."""
    return store.accept(a_request(**changes), enqueue=None, max_queue_depth=0).task_id


def leased(store: TaskStore, holder: str, **changes: Any) -> str:
    task_id = accept(store, **changes)
    assert lease_one(store, holder, task_id).state is LeaseState.LEASED
    return task_id


def running(store: TaskStore, holder: str, **changes: Any) -> str:
    task_id = leased(store, holder, **changes)
    assert store.start(holder, [task_id]) == [1]
    return task_id


def finished(store: TaskStore, **changes: Any) -> str:
    task_id = running(store, "w", **changes)
    assert commit_one(store, "w", task_id, attempt=1)
    return task_id


def lease_one(store: TaskStore, holder: str, task_id: str) -> Lease:
    return store.lease(holder, [task_id]).leases[0]


def commit_one(store: TaskStore, holder: str, task_id: str, *, attempt: int, outcome: Outcome | None = None) -> bool:
    return store.commit(holder, [Commit(task_id, attempt, outcome or a_success())])[0]


def bury_one(store: TaskStore, holder: str, task_id: str, *, attempt: int) -> bool:
    return store.commit(holder, [Commit(task_id, attempt, a_failure(), dead_letter=True)])[0]


def status(store: TaskStore, task_id: str) -> TaskStatus:
    return store.get(task_id).status


def position(store: TaskStore, task_id: str) -> int | None:
    """The task's place in the usual queue; None where it does not wait."""
    place = store.get_places({QUEUE: [task_id]}).get(task_id)
    return None if place is None else place.position
