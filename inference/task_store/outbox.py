"""Outboxes: a Redis stream of task ids for each sink. The commit script adds entries; the relays share the reading."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import redis

from inference.runtime.redis import unavailable_when_down
from inference.settings import OutboxSettings
from inference.task_store.scripts import RELAY_GROUP

#: How long a relay is remembered after it last asked for entries.
_RELAY_MEMORY_S = 86_400
#: Entries of one reading while results are sought.
_SCANNED = 1000


@dataclass(frozen=True)
class ErasureOrder:
    """Order to erase a result in the sink."""

    erasure_id: str
    #: empty if other tasks have the same one
    own_request_id: str
    #: whether the result was in the outbox when the order came: a relay may be about to write it
    is_pending: bool


@dataclass(frozen=True)
class OutboxEntry:
    entry_id: bytes
    task_id: str
    #: None: the result is to be delivered
    erasure: ErasureOrder | None = None


class Outbox:
    """The outbox of one sink as one relay (`consumer`) reads it."""

    def __init__(self, client: redis.Redis, key_prefix: str, sink: str, consumer: str) -> None:
        self._redis = client
        self._stream = f"{key_prefix}:outbox:{sink}"
        self._relays = f"{key_prefix}:relays:{sink}"
        self._consumer = consumer

    def open(self) -> None:
        """Make the stream and its consumer group if they are missing, and note that this relay reads the stream.

        The note is a key of its own, because Redis before 7.2 does not list a consumer that has found no entry yet.
        """
        with unavailable_when_down():
            now_s = _now_s(self._redis)
            self._redis.zadd(self._relays, {self._consumer: now_s})
            try:
                self._redis.xgroup_create(self._stream, RELAY_GROUP, id="0", mkstream=True)
            except redis.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
            self._forget_relays(now_s - _RELAY_MEMORY_S)

    def _forget_relays(self, before_s: float) -> None:
        """Remove relays that ended long ago and hold no entry: each start of a relay makes a new consumer."""
        silent: Any = self._redis.zrangebyscore(self._relays, "-inf", before_s)
        held = _held(self._redis, self._stream) if silent else {}
        for name in silent:
            if name not in held:
                self._redis.xgroup_delconsumer(self._stream, RELAY_GROUP, name)
                self._redis.zrem(self._relays, name)

    def take(self, count: int, *, block_ms: int) -> list[OutboxEntry]:
        """Take entries that no relay has; wait up to `block_ms` for the first."""
        with unavailable_when_down():
            answer: Any = self._redis.xreadgroup(RELAY_GROUP, self._consumer, {self._stream: ">"}, count=count, block=block_ms)
        # redis-py returns a list of (stream, entries) or, with RESP3, a mapping of stream to a list of entries.
        if not answer:
            return []
        entries = next(iter(answer.values()))[0] if isinstance(answer, dict) else answer[0][1]
        return _parse(entries)

    def claim(self, count: int, *, idle_s: float) -> list[OutboxEntry]:
        """Claim entries that a relay (also this one) took at least `idle_s` ago and did not deliver."""
        with unavailable_when_down():
            answer: Any = self._redis.xautoclaim(
                self._stream, RELAY_GROUP, self._consumer, round(idle_s * 1000), "0", count=count
            )
        return _parse(answer[1])

    def find_results_before(self, orders: Iterable[OutboxEntry]) -> set[str]:
        """Return the ids of the tasks whose results are still in the outbox, before the order to erase them."""
        sought = {order.task_id: _number(order.entry_id) for order in orders if order.erasure and order.erasure.is_pending}
        found: set[str] = set()
        start = b"-"
        while sought:
            with unavailable_when_down():
                answer: Any = self._redis.xrange(self._stream, min=start, count=_SCANNED)
            entries = _parse(answer)
            results = (entry for entry in entries if entry.erasure is None and entry.task_id in sought)
            found |= {entry.task_id for entry in results if _number(entry.entry_id) < sought[entry.task_id]}
            if len(entries) < _SCANNED:
                break
            start = b"(" + entries[-1].entry_id
        return found


@dataclass(frozen=True)
class OutboxStats:
    #: results that wait for the sink
    entries: int
    #: seconds since the oldest of them was committed; 0 when there is none
    oldest_age_s: float

    def is_over(self, limits: OutboxSettings) -> bool:
        """Return whether the outbox is so full that new requests with results for this sink are refused."""
        return self.entries >= limits.max_entries or self.oldest_age_s >= limits.max_age_s


@dataclass(frozen=True)
class RelayInfo:
    """A relay that reads an outbox, or has read it."""

    relay: str
    #: entries that it has taken and not delivered
    held: int
    #: seconds since it last asked for entries; it pauses while the sink is down
    silent_s: float


def outbox_stats(client: redis.Redis, key_prefix: str, sink: str) -> OutboxStats:
    """Return how many results wait for a sink, whether a relay runs or not."""
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


def relays_of(client: redis.Redis, key_prefix: str, sink: str) -> list[RelayInfo]:
    """Return the relays that have read a sink's outbox within a day, and the relays that hold entries of it."""
    with unavailable_when_down():
        now_s = _now_s(client)
        found: Any = client.zrange(f"{key_prefix}:relays:{sink}", 0, -1, withscores=True)
        asked_at_s = dict(found)
        held = _held(client, f"{key_prefix}:outbox:{sink}")
    return [
        RelayInfo(name.decode(), held.get(name, 0), max(0.0, now_s - asked_at_s.get(name, now_s - _RELAY_MEMORY_S)))
        for name in sorted(asked_at_s.keys() | held.keys())
    ]


def _held(client: redis.Redis, stream: str) -> dict[bytes, int]:
    """Return, by relay, the number of entries that it has taken and not delivered."""
    try:
        summary: Any = client.xpending(stream, RELAY_GROUP)
    except redis.ResponseError as error:
        if not str(error).startswith("NOGROUP"):  # no relay has ever read it
            raise
        return {}
    return {one["name"]: one["pending"] for one in summary["consumers"]}


def _now_s(client: redis.Redis) -> float:
    """Return the time of the server's clock, seconds since the epoch."""
    now: Any = client.time()
    seconds, microseconds = now
    return float(seconds + microseconds / 1e6)


def _parse(entries: Iterable[Any]) -> list[OutboxEntry]:
    # Redis 6.2 claims deleted entries as (None, None).
    return [OutboxEntry(entry_id, fields[b"task_id"].decode(), _order(fields)) for entry_id, fields in entries if fields]


def _number(entry_id: bytes) -> tuple[int, ...]:
    return tuple(map(int, entry_id.split(b"-")))


def _order(fields: Mapping[bytes, bytes]) -> ErasureOrder | None:
    if b"erasure" not in fields:
        return None
    return ErasureOrder(fields[b"erasure"].decode(), fields[b"request_id"].decode(), fields[b"is_pending"] == b"1")
