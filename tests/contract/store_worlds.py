"""A task store together with what a test does around it: letting time pass, looking at the outbox and the queue."""

from __future__ import annotations

from typing import Any, Protocol

import redis
from support.fakes import FakeTaskStore
from support.time_travel import let_time_pass

from inference.task_store import Enqueue, TaskStore
from inference.task_store.redis_store import RedisTaskStore, StorePolicy

LEASE_S = 10.0
RESULT_TTL_S = 600.0
IDEMPOTENCY_TTL_S = 300.0


class StoreWorld(Protocol):
    store: TaskStore

    def let_pass(self, seconds: float) -> None:
        """Time passes, for the store and for all that is in it."""

    def expires_in_s(self, task_id: str) -> float | None:
        """Seconds until the record is forgotten; None while it is kept."""

    def outbox(self, sink: str) -> list[tuple[bytes, str]]:
        """(entry id, task id), oldest first."""

    def pushed(self, list_key: str) -> list[bytes]:
        """Payloads that `accept` has pushed, oldest first."""


class FakeWorld:
    def __init__(self, key_prefix: str) -> None:
        self._pushed: list[Enqueue] = []
        self._store = FakeTaskStore(policy=_policy(key_prefix), on_enqueue=self._pushed.append)
        self.store: TaskStore = self._store

    def let_pass(self, seconds: float) -> None:
        self._store.clock.advance(seconds)

    def expires_in_s(self, task_id: str) -> float | None:
        return self._store.expires_in_s(task_id)

    def outbox(self, sink: str) -> list[tuple[bytes, str]]:
        return list(self._store.outbox[sink].items())

    def pushed(self, list_key: str) -> list[bytes]:
        return [enqueue.payload for enqueue in self._pushed if enqueue.list_key == list_key]


class RedisWorld:
    def __init__(self, client: redis.Redis, key_prefix: str) -> None:
        self._redis = client
        self._prefix = key_prefix
        self.store: TaskStore = RedisTaskStore(client, _policy(key_prefix))

    def let_pass(self, seconds: float) -> None:
        let_time_pass(self._redis, self._prefix, seconds)

    def expires_in_s(self, task_id: str) -> float | None:
        ttl_ms: Any = self._redis.pttl(f"{self._prefix}:task:{task_id}")
        assert ttl_ms != -2, "there is no such record"
        return None if ttl_ms == -1 else ttl_ms / 1000

    def outbox(self, sink: str) -> list[tuple[bytes, str]]:
        entries: Any = self._redis.xrange(f"{self._prefix}:outbox:{sink}")
        return [(entry_id, fields[b"task_id"].decode()) for entry_id, fields in entries]

    def pushed(self, list_key: str) -> list[bytes]:
        payloads: Any = self._redis.lrange(list_key, 0, -1)
        return list(reversed(payloads))


def _policy(key_prefix: str) -> StorePolicy:
    return StorePolicy(key_prefix, lease_s=LEASE_S, result_ttl_s=RESULT_TTL_S, idempotency_ttl_s=IDEMPOTENCY_TTL_S)
