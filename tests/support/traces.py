"""Search of everything that a Redis server has, for a text or bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import redis


def keys_with(client: redis.Redis, match: str, *sought: bytes) -> list[str]:
    """Names of the keys whose name, or any value, contains one of these."""
    return [
        f"{key.decode(errors='replace')}: {part!r}"
        for key in client.scan_iter(match, count=10_000)
        for part in (key, *_parts(client, key))
        if any(one in part for one in sought)
    ]


def _parts(client: redis.Redis, key: bytes) -> Iterator[bytes]:
    """All texts in a value, of any type."""
    kind: Any = client.type(key)
    found: Any
    match kind:
        case b"string":
            found = [client.get(key) or b""]
        case b"list":
            found = client.lrange(key, 0, -1)
        case b"set":
            found = client.smembers(key)
        case b"zset":
            found = client.zrange(key, 0, -1)
        case b"hash":
            found = [part for pair in client.hgetall(key).items() for part in pair]  # type: ignore[union-attr]
        case b"stream":
            entries: Any = client.xrange(key)
            found = [part for _, fields in entries for pair in fields.items() for part in pair]
        case _:  # it expired meanwhile
            found = []
    yield from found
