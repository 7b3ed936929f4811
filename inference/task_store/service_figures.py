"""Figures of the whole service in the Redis task store, for metrics: their number and cost do not depend on the load.

Redis keys:

    PREFIX:waiting:QUEUE  sorted set: tasks that wait, by acceptance number
    PREFIX:running:QUEUE  set: tasks that run
    PREFIX:task:ID        hash: task record
    PREFIX:outbox:SINK    stream: results that wait for a sink
    PREFIX:webhooks       sorted set: tasks whose webhook waits for its event, by the time of their end, ms
    PREFIX:dead-letters   sorted set: dead letters
    PREFIX:rejected       hash: messages that could not be read
    PREFIX:unstored       sorted set: late images
    PREFIX:open-tasks     hash: by owner, number of tasks that have not ended
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis

from inference.runtime.redis import unavailable_when_down


@dataclass(frozen=True)
class QueueFigures:
    waiting: int
    running: int
    #: seconds since the oldest waiting task was accepted; 0 if none waits
    oldest_age_s: float


@dataclass(frozen=True)
class WaitingFigures:
    """Entries that wait for a sink, or for the receivers of webhooks."""

    entries: int
    #: 0 if none waits
    oldest_age_s: float


@dataclass(frozen=True)
class ServiceFigures:
    queues: dict[str, QueueFigures]
    outboxes: dict[str, WaitingFigures]
    webhooks: WaitingFigures
    dead_letters: int
    rejected_messages: int
    unstored_images: int
    #: by owner
    open_tasks: dict[str, int]


def read_service_figures(client: redis.Redis, key_prefix: str, queues: Sequence[str], sinks: Sequence[str]) -> ServiceFigures:
    """Read the figures in one round trip, and the ages of the oldest tasks in another. Raises ServiceUnavailable."""
    with unavailable_when_down(), client.pipeline(transaction=False) as pipe:
        _ask_for_totals(pipe, key_prefix)
        for sink in sinks:
            pipe.xlen(f"{key_prefix}:outbox:{sink}")
            pipe.xrange(f"{key_prefix}:outbox:{sink}", count=1)
        for queue in queues:
            pipe.zcard(f"{key_prefix}:waiting:{queue}")
            pipe.scard(f"{key_prefix}:running:{queue}")
            pipe.zrange(f"{key_prefix}:waiting:{queue}", 0, 0)
        (seconds, us), open_tasks, dead_letters, rejected, unstored, events, oldest_event, *rest = pipe.execute()
        of_sinks = dict(zip(sinks, _groups(rest[: 2 * len(sinks)], 2), strict=True))
        of_queues = dict(zip(queues, _groups(rest[2 * len(sinks) :], 3), strict=True))
        oldest_tasks = {queue: oldest[0].decode() for queue, (_, _, oldest) in of_queues.items() if oldest}
        for task_id in oldest_tasks.values():
            pipe.hget(f"{key_prefix}:task:{task_id}", "created_at")
        created_ms = dict(zip(oldest_tasks, pipe.execute(), strict=True))
    now_ms = seconds * 1000 + us / 1000
    return ServiceFigures(
        queues={
            queue: QueueFigures(waiting, running, _age_s(now_ms, created_ms.get(queue)))
            for queue, (waiting, running, _) in of_queues.items()
        },
        outboxes={
            sink: WaitingFigures(entries, _age_s(now_ms, oldest[0][0].partition(b"-")[0] if oldest else None))
            for sink, (entries, oldest) in of_sinks.items()
        },
        webhooks=WaitingFigures(events, _age_s(now_ms, oldest_event[0][1] if oldest_event else None)),
        dead_letters=dead_letters,
        rejected_messages=rejected,
        unstored_images=unstored,
        open_tasks={owner.decode("utf-8", "replace"): int(count) for owner, count in open_tasks.items()},
    )


def _ask_for_totals(pipe: Any, key_prefix: str) -> None:
    pipe.time()
    pipe.hgetall(f"{key_prefix}:open-tasks")
    pipe.zcard(f"{key_prefix}:dead-letters")
    pipe.hlen(f"{key_prefix}:rejected")
    pipe.zcard(f"{key_prefix}:unstored")
    pipe.zcard(f"{key_prefix}:webhooks")
    pipe.zrange(f"{key_prefix}:webhooks", 0, 0, withscores=True)


def _groups(answers: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [answers[start : start + size] for start in range(0, len(answers), size)]


def _age_s(now_ms: float, since_ms: Any) -> float:
    """Return the seconds since a time, as Redis returns it; 0 if there is none, or it is not a number."""
    try:
        return max(0.0, now_ms - float(since_ms)) / 1000
    except (TypeError, ValueError):  # a record that cannot be read must not hide the figures
        return 0.0
