"""Uploads in the Redis task store: inline images, late images, and the data to find uploads without a task.

Redis keys:

    PREFIX:seq:tag           string: the store's tag, six hexadecimal digits, a part of the id of each task made for this store
    PREFIX:seq:lives         sorted set: times that records live after their end, ms, by the time of their last use, ms
    PREFIX:seq:lives-since   string: time since which these are noted, ms
    PREFIX:upload-secret     string: random bytes with which the URLs of uploads are signed
    PREFIX:image:ID          string: the inline image of an open task
    PREFIX:inline-bytes      string: bytes of all inline images
    PREFIX:unstored          sorted set: ids of tasks with a late image, by time, ms
    PREFIX:unstored:ID       string: the late image
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import redis

from inference.runtime.redis import unavailable_when_down
from inference.task_store.protocol import RecordLife
from inference.task_store.scripts import Scripts

_TAG_BYTES, _SECRET_BYTES = 3, 32
#: Limit for the number of late images; each has at most `uploads.inline_max_bytes`.
_MAX_KEPT = 2000


class RedisUploads:
    """Part of `TaskStore` for uploads."""

    def __init__(self, client: redis.Redis, scripts: Scripts, key_prefix: str, *, result_ttl_s: float) -> None:
        self._redis = client
        self._scripts = scripts
        self._prefix = key_prefix
        self._ttl_ms = round(result_ttl_s * 1000)

    def get_tag(self) -> str:
        return self._get_once(self._key("seq", "tag"), _TAG_BYTES)

    def get_upload_secret(self) -> str:
        return self._get_once(self._key("upload-secret"), _SECRET_BYTES)

    def _get_once(self, key: str, size: int) -> str:
        """Return random hexadecimal digits, which the first call makes for all processes."""
        with unavailable_when_down():
            value: Any = self._redis.get(key)
            if value is None:
                self._redis.set(key, secrets.token_hex(size), nx=True)
                value = self._redis.get(key)
        return str(value.decode())

    def find_unknown(self, tag: str, task_ids: Sequence[str]) -> list[str]:
        return [task_id.decode() for task_id in self._scripts.run("find_unknown", tag, *task_ids)]

    def get_record_life(self) -> RecordLife:
        since_ms, shortest_ms = self._scripts.run("record_life", self._ttl_ms)
        return RecordLife(since_ms / 1000, shortest_ms / 1000)

    def keep_image(self, task_id: str, image: bytes) -> bool:
        return bool(self._scripts.run("keep_image", task_id, self._ttl_ms, _MAX_KEPT, image))

    def list_kept_images(self, limit: int) -> list[str]:
        with unavailable_when_down():
            ids: Any = self._redis.zrange(self._key("unstored"), 0, limit - 1)
        return [task_id.decode() for task_id in ids]

    def get_kept_image(self, task_id: str) -> bytes | None:
        with unavailable_when_down():
            image: Any = self._redis.get(self._key("unstored", task_id))
        return None if image is None else bytes(image)

    def drop_image(self, task_id: str, *, is_stored: bool) -> None:
        self._scripts.run("drop_image", task_id, int(is_stored))

    def count_kept_images(self) -> int:
        with unavailable_when_down():
            count: Any = self._redis.zcard(self._key("unstored"))
        return int(count)

    def _key(self, *parts: str) -> str:
        return ":".join((self._prefix, *parts))
