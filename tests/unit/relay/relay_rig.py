"""Rig of the relay's tests: a record store, its outbox for one sink, and relays to that sink."""

from __future__ import annotations

from typing import Any

import redis
from support.fakes import FakeSink
from support.samples import a_request, a_success

from inference.relay.delivery import Relay, RelayPolicy
from inference.task_store import Commit
from inference.task_store.outbox import Outbox, outbox_stats
from inference.task_store.redis_store import RedisTaskStore, StorePolicy

#: No pauses worth the name, and what a dead relay held is another's at once.
POLICY = RelayPolicy(batch_size=3, backoff_s=0.001, max_backoff_s=0.002, reclaim_after_s=0)


class Rig:
    """A record store, its outbox for one sink, and relays to that sink."""

    def __init__(self, client: redis.Redis, key_prefix: str) -> None:
        self.client = client
        self.key_prefix = key_prefix
        self.store = RedisTaskStore(client, StorePolicy(key_prefix))
        self.sink = FakeSink("sink")

    def outbox(self, consumer: str) -> Outbox:
        return Outbox(self.client, self.key_prefix, "sink", consumer)

    def relay(self, consumer: str = "relay-1", sink: FakeSink | None = None, policy: RelayPolicy = POLICY) -> Relay:
        return Relay(self.outbox(consumer), self.store, sink or self.sink, pipeline_id="pipeline", policy=policy)

    def finish(self, count: int, **changes: Any) -> list[str]:
        """Finish that many tasks with success; return their ids in order of their commits."""
        requests = (a_request(sinks=("sink",), **changes) for _ in range(count))
        ids = [self.store.accept(request, enqueue=None, max_queue_depth=0).task_id for request in requests]
        self.store.lease("w", ids)
        self.store.start("w", ids)
        assert all(self.store.commit("w", [Commit(task_id, 1, a_success()) for task_id in ids]))
        return ids

    def waiting(self) -> int:
        return outbox_stats(self.client, self.key_prefix, "sink").entries

    def pending(self) -> int:
        """Entries that some relay took and did not deliver."""
        summary: Any = self.client.xpending(f"{self.key_prefix}:outbox:sink", "relay")
        return int(summary["pending"])

    def deliveries(self, task_ids: list[str]) -> set[str]:
        return {self.store.get(task_id).deliveries["sink"] for task_id in task_ids}
