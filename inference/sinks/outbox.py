"""One Redis stream for each sink, holding task ids only. The commit script fills it; the relays share its reading."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import redis

from inference.task_store.redis_store import RELAY_GROUP, unavailable_when_down


@dataclass(frozen=True)
class OutboxEntry:
    entry_id: bytes
    task_id: str


class Outbox:
    """The outbox of one sink as one relay (`consumer`) reads it."""

    def __init__(self, client: redis.Redis, key_prefix: str, sink: str, consumer: str) -> None:
        self._redis = client
        self._stream = f"{key_prefix}:outbox:{sink}"
        self._consumer = consumer

    def open(self) -> None:
        """Make the stream and its group where they are missing."""
        with unavailable_when_down():
            try:
                self._redis.xgroup_create(self._stream, RELAY_GROUP, id="0", mkstream=True)
            except redis.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    def take(self, count: int, *, block_ms: int) -> list[OutboxEntry]:
        """Entries that no relay has; waits up to `block_ms` for the first."""
        with unavailable_when_down():
            answer: Any = self._redis.xreadgroup(RELAY_GROUP, self._consumer, {self._stream: ">"}, count=count, block=block_ms)
        # redis-py gives a list of (stream, entries) or, with RESP3, a mapping of stream to a list of entries.
        if not answer:
            return []
        entries = next(iter(answer.values()))[0] if isinstance(answer, dict) else answer[0][1]
        return _parse(entries)

    def claim(self, count: int, *, idle_s: float) -> list[OutboxEntry]:
        """Entries that some relay (this one too) took at least `idle_s` ago and did not deliver."""
        with unavailable_when_down():
            answer: Any = self._redis.xautoclaim(
                self._stream, RELAY_GROUP, self._consumer, round(idle_s * 1000), "0", count=count
            )
        return _parse(answer[1])


@dataclass(frozen=True)
class OutboxStats:
    #: results that wait for the sink
    entries: int
    #: seconds since the oldest of them was committed; 0 when there is none
    oldest_age_s: float


def outbox_stats(client: redis.Redis, key_prefix: str, sink: str) -> OutboxStats:
    """How much waits for a sink, whether a relay runs or not."""
    stream = f"{key_prefix}:outbox:{sink}"
    with unavailable_when_down(), client.pipeline(transaction=False) as pipe:
        pipe.xlen(stream)
        pipe.xrange(stream, count=1)
        pipe.time()
        entries, oldest, (seconds, microseconds) = pipe.execute()
    if not oldest:
        return OutboxStats(int(entries), 0.0)
    committed_at_ms = int(oldest[0][0].split(b"-")[0])
    return OutboxStats(int(entries), max(0.0, seconds + microseconds / 1e6 - committed_at_ms / 1000))


def _parse(entries: Iterable[Any]) -> list[OutboxEntry]:
    # Redis 6.2 claims deleted entries as (None, None).
    return [OutboxEntry(entry_id, fields[b"task_id"].decode()) for entry_id, fields in entries if fields]
