"""Notes on messages that were delivered again and are being taken: how many workers has each of them ended.

Redis keys, in the task store:

    PREFIX:taken:DIGEST   hash of the message whose id has this digest: `worker` that takes it, `deaths` of workers before
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any

import redis

from inference.runtime.redis import unavailable_when_down

#: Longer than the time after which any broker gives a dead worker's message to another worker.
_TTL_S = 86_400
# Returns how many workers ended while they took the message.
_TAKE = """
local worker, deaths = unpack(redis.call('HMGET', KEYS[1], 'worker', 'deaths'))
if worker and worker ~= ARGV[1] then deaths = redis.call('HINCRBY', KEYS[1], 'deaths', 1) end
redis.call('HSET', KEYS[1], 'worker', ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return tonumber(deaths or 0)
"""


class TakenMessages:
    """Notes on messages; each exists from the time when a worker takes the message until its tasks are leased."""

    def __init__(self, client: redis.Redis, key_prefix: str) -> None:
        self._redis = client
        self._key_prefix = f"{key_prefix}:taken:"

    def take(self, message_id: str, worker: str) -> int:
        """Note that `worker` takes the message; return how many others ended while they took it. Raises ServiceUnavailable."""
        with unavailable_when_down():
            return int(self._take_script(keys=[self._key(message_id)], args=[worker, _TTL_S]))

    def forget(self, message_id: str) -> None:
        """Delete the note: the tasks of the message are leased. Raises ServiceUnavailable."""
        with unavailable_when_down():
            self._redis.delete(self._key(message_id))

    def _key(self, message_id: str) -> str:
        return self._key_prefix + hashlib.sha256(message_id.encode(errors="replace")).hexdigest()[:32]

    @cached_property
    def _take_script(self) -> Any:
        return self._redis.register_script(_TAKE)
