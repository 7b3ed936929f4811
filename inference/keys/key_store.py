"""Keys in the record store: a hash of all keys, with a version that each change replaces."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import redis
from pydantic import ValidationError

from inference.keys.entries import Key, KeyEntry
from inference.runtime.redis import unavailable_when_down

logger = logging.getLogger(__name__)

#: Field of the hash that says which version it is. No id of a key has fewer than ten characters.
_VERSION = "version"


@dataclass(frozen=True)
class StoredKeys:
    """All keys of the record store at one moment."""

    #: None: there has never been a key
    version: bytes | None = None
    #: by id
    keys: Mapping[str, Key] = field(default_factory=dict)


class KeyStore:
    """Keys on a Redis server. Every method raises ServiceUnavailable."""

    def __init__(self, client: redis.Redis, key_prefix: str) -> None:
        self._redis = client
        self._name = f"{key_prefix}:keys"

    def read(self, known: StoredKeys | None = None) -> StoredKeys:
        """Return all keys; `known` itself if they are still those. An entry that is not valid is left out, and logged."""
        with unavailable_when_down():
            if known is not None and self._redis.hget(self._name, _VERSION) == known.version:
                return known
            found: Any = self._redis.hgetall(self._name)
        version = found.pop(_VERSION.encode(), None)
        keys = (_parsed(key_id.decode(errors="replace"), entry) for key_id, entry in found.items())
        return StoredKeys(version, {key.key_id: key for key in keys if key is not None})

    def add(self, key: Key) -> None:
        """Store a key."""
        with unavailable_when_down():
            self._redis.hset(self._name, mapping=_fields(key))

    def revoke(self, key_id: str) -> bool:
        """Delete a key; False if there is none with this id."""
        with unavailable_when_down(), self._redis.pipeline(transaction=True) as pipe:
            pipe.hdel(self._name, key_id)
            pipe.hset(self._name, _VERSION, _new_version())
            deleted, _ = pipe.execute()
        return bool(deleted)

    def rotate(self, key_id: str, new: Key, expires_at: datetime) -> bool:
        """Store `new`, and let the key with this id expire at `expires_at`, if it does not before; False if there is none."""

        def change(pipe: Any) -> bool:
            entry = pipe.hget(self._name, key_id)
            old = None if entry is None else _parsed(key_id, entry)
            pipe.multi()
            if old is None:
                return False
            expiry = expires_at if old.expires_at is None else min(expires_at, old.expires_at)
            pipe.hset(self._name, mapping=_fields(replace(old, expires_at=expiry), new))
            return True

        transaction: Any = self._redis.transaction  # redis-py's type has no value
        with unavailable_when_down():
            return bool(transaction(change, self._name, value_from_callable=True))


def _fields(*keys: Key) -> dict[Any, Any]:
    """Return the fields of the hash that store these keys."""
    entries = {key.key_id: KeyEntry.of(key).model_dump_json(exclude_none=True) for key in keys}
    return entries | {_VERSION: _new_version()}


def _new_version() -> str:
    """Return a random version: a counter would repeat itself after the restore of a backup."""
    return secrets.token_hex(8)


def _parsed(key_id: str, entry: bytes) -> Key | None:
    try:
        return KeyEntry.model_validate_json(entry).key(key_id)
    except ValidationError:
        logger.error("the entry of the key %s in the record store is not valid, so that it is refused", key_id)  # noqa: TRY400 it has a digest
        return None
