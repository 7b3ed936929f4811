"""Figures of queues in the Redis task store; the script queue_stats reads them.

Redis keys: those of the script, and

    PREFIX:change:QUEUE    string: the change of the rate that a worker expects
    PREFIX:pace:QUEUE      hash: batches by minute, which the script commit writes
    PREFIX:started:QUEUE   hash: by priority and owner, the highest acceptance number that has started
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import redis

from inference.runtime.redis import unavailable_when_down
from inference.task_store.protocol import CHANGE_LIFE_S, BatchFill, Order, QueueLoad, QueuePlace, QueueStats, RateChange
from inference.task_store.queue_figures import FILL_FIELDS, change_field, fill_from, load_from, places_from, stats_from
from inference.task_store.scripts import Scripts
from inference.task_store.submissions import in_ms


class RedisQueues:
    """Part of `TaskStore` for queues."""

    _redis: redis.Redis
    _scripts: Scripts
    _prefix: str
    #: whether owners take turns
    _has_turns: bool

    def get_places(self, task_ids: Mapping[str, Sequence[str]]) -> dict[str, QueuePlace]:
        answers = self._scripts.run_pipelined(
            *(("queue_stats", [queue, 0, int(self._has_turns), *ids]) for queue, ids in task_ids.items())
        )
        places: dict[str, QueuePlace] = {}
        for ids, answer in zip(task_ids.values(), answers, strict=True):
            places |= places_from(answer, ids)
        return places

    def get_queue_stats(self, queue: str) -> QueueStats:
        return stats_from(self._scripts.run("queue_stats", queue, 0, int(self._has_turns)))

    def get_batch_fill(self, queue: str) -> tuple[BatchFill, ...]:
        with unavailable_when_down(), self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hmget(f"{self._prefix}:pace:{queue}", FILL_FIELDS)
            answers: Any = pipe.execute()
        (server_time_s, _), fields = answers
        return fill_from(fields, server_time_s)

    def get_queue_load(self, queue: str, *, refused: int = 0) -> QueueLoad:
        return load_from(self._scripts.run("queue_stats", queue, refused, int(self._has_turns)), has_turns=self._has_turns)

    def get_started_watermarks(self, queue: str) -> dict[Order, int]:
        with unavailable_when_down():
            highest: Any = self._redis.hgetall(f"{self._prefix}:started:{queue}")
        return {_order_from(field): int(number) for field, number in highest.items()}

    def find_lost(self, queue: str, *, up_to: Mapping[Order, int] | None, grace_s: float, limit: int) -> list[str]:
        bounds = ["all"] if up_to is None else [part for order, number in up_to.items() for part in (_field_of(order), number)]
        return [
            task_id.decode()
            for task_id in self._scripts.run("find_lost", queue, in_ms(grace_s), limit, int(self._has_turns), *bounds)
        ]

    def forget_gone(self, queue: str, *, limit: int) -> int:
        return int(self._scripts.run("forget_gone", queue, limit))

    def expect_change(self, queue: str, change: RateChange) -> None:
        with unavailable_when_down():
            self._redis.set(f"{self._prefix}:change:{queue}", change_field(change), px=round(CHANGE_LIFE_S * 1000))


def _field_of(order: Order) -> str:
    """Return the field of PREFIX:started:QUEUE."""
    return f"{order.priority} {order.owner}" if order.owner else str(order.priority)


def _order_from(field: bytes) -> Order:
    priority, _, owner = field.decode().partition(" ")
    return Order(int(priority), owner)
