"""Moving a Redis task store's past further back: the same as letting time pass, without waiting for it."""

from __future__ import annotations

import re
from typing import Any

import redis

from inference.task_store.queue_figures import FILL_MINUTES

#: A number over this is a time in ms since the epoch (2001 and later), not a count.
_EPOCH_MS = 10**12
_NUMBER = re.compile(rb"\d+(\.\d+)?")
_MINUTE_MS = 60_000


def let_time_pass(client: redis.Redis, key_prefix: str, seconds: float) -> None:
    """Make every time, lease, deadline and time to live under `key_prefix` older by `seconds`."""
    ms = round(seconds * 1000)
    for key in list(client.scan_iter(match=f"{key_prefix}:*", count=1000)):
        kind: Any = client.type(key)
        if kind == b"hash":
            _age_hash(client, key, ms)
        elif kind == b"zset":
            _age_scores(client, key, ms)
        _age_key(client, key, ms)
        if kind == b"string":
            _age_name(client, key, ms // 1000)


def _age_hash(client: redis.Redis, key: bytes, ms: int) -> None:
    fields: Any = client.hgetall(key)
    numbers = {name: value for name, value in fields.items() if _NUMBER.fullmatch(value)}
    times = {name: _earlier(value, ms) for name, value in numbers.items() if float(value) > _EPOCH_MS}
    if times:
        client.hset(key, mapping=times)
    minutes = {name: value.split() for name, value in fields.items() if name.startswith(b"minute:")}
    if minutes and ms >= _MINUTE_MS:
        client.hdel(key, *minutes)
        for minute, images, batches in minutes.values():
            then = int(minute) - ms // _MINUTE_MS
            client.hset(key, f"minute:{then % FILL_MINUTES}", b"%d %b %b" % (then, images, batches))


def _earlier(value: bytes, ms: int) -> int | float:
    return int(value) - ms if value.isdigit() else float(value) - ms


def _age_scores(client: redis.Redis, key: bytes, ms: int) -> None:
    members: Any = client.zrange(key, 0, -1, withscores=True)
    times = {member: score - ms for member, score in members if score > _EPOCH_MS}
    if times:
        client.zadd(key, times)


def _age_key(client: redis.Redis, key: bytes, ms: int) -> None:
    ttl: Any = client.pttl(key)
    if ttl > 0:
        client.pexpire(key, max(0, ttl - ms))


def _age_name(client: redis.Redis, key: bytes, seconds: int) -> None:
    """A count of one second, which its name ends with."""
    name, _, second = key.rpartition(b":")
    if second.isdigit() and client.exists(key):
        client.rename(key, b"%s:%d" % (name, int(second) - seconds))
