"""Figures of queues in the Redis task store; the script queue_stats reads them.

Redis keys: those of the script, and

    PREFIX:change:QUEUE   string: the change of the rate that a worker expects
    PREFIX:pace:QUEUE     hash: batches by minute, which the script commit writes
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import redis

from inference.runtime.redis import unavailable_when_down
from inference.task_store.protocol import CHANGE_LIFE_S, BatchFill, QueueLoad, QueuePlace, QueueStats, RateChange
from inference.task_store.queue_figures import FILL_FIELDS, change_field, fill_from, load_from, places_from, stats_from
from inference.task_store.scripts import Scripts


class RedisQueues:
    """Part of `TaskStore` for queues."""

    _redis: redis.Redis
    _scripts: Scripts
    _prefix: str

    def get_places(self, task_ids: Mapping[str, Sequence[str]]) -> dict[str, QueuePlace]:
        answers = self._scripts.run_pipelined(*(("queue_stats", [queue, 0, *ids]) for queue, ids in task_ids.items()))
        places: dict[str, QueuePlace] = {}
        for ids, answer in zip(task_ids.values(), answers, strict=True):
            places |= places_from(answer, ids)
        return places

    def get_queue_stats(self, queue: str) -> QueueStats:
        return stats_from(self._scripts.run("queue_stats", queue, 0))

    def get_batch_fill(self, queue: str) -> tuple[BatchFill, ...]:
        with unavailable_when_down(), self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hmget(f"{self._prefix}:pace:{queue}", FILL_FIELDS)
            answers: Any = pipe.execute()
        (server_time_s, _), fields = answers
        return fill_from(fields, server_time_s)

    def get_queue_load(self, queue: str, *, refused: int = 0) -> QueueLoad:
        return load_from(self._scripts.run("queue_stats", queue, refused))

    def expect_change(self, queue: str, change: RateChange) -> None:
        with unavailable_when_down():
            self._redis.set(f"{self._prefix}:change:{queue}", change_field(change), px=round(CHANGE_LIFE_S * 1000))
