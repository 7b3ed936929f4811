"""Search of everything that stores have, for texts or bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from minio import Minio


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


def objects_with(client: Minio, bucket: str, *sought: bytes) -> list[str]:
    """Objects whose key, content or metadata contains one of these, in any version."""
    found = []
    for entry in client.list_objects(bucket, recursive=True, include_version=True):
        name = str(entry.object_name)
        response = client.get_object(bucket, name, version_id=entry.version_id)
        with response:
            whole = name.encode() + repr(response.headers).encode() + response.read()
        response.release_conn()
        if any(one in whole for one in sought):
            found.append(name)
    return found


def files_with(folder: Path, *sought: bytes) -> list[str]:
    """Files below a folder whose name or content contains one of these."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return [str(path) for path in files if any(one in path.name.encode() + path.read_bytes() for one in sought)]
