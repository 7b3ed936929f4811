"""Use of the service by owners, in the Redis task store; the accept script counts it.

Redis keys:

    PREFIX:owner:OWNER:use   hash: `due` of the rate limit; `images` and `bytes` of the day that began at `day`; `seq`, the
                             number of the owner's last task
    PREFIX:open-tasks        hash: by owner, number of tasks that have not ended
"""

from __future__ import annotations

import redis

from inference.access import OwnerUse
from inference.runtime.redis import unavailable_when_down

_DAY_S = 86_400


class RedisOwners:
    """Part of `TaskStore` for owners."""

    _redis: redis.Redis
    _prefix: str

    def get_owner_use(self, owner: str) -> OwnerUse:
        with unavailable_when_down(), self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hmget(f"{self._prefix}:owner:{owner}:use", "due", "day", "images", "bytes")
            pipe.hget(f"{self._prefix}:open-tasks", owner)
            (seconds, us), (due, day, *today), tasks = pipe.execute()
        now_s = seconds + us / 1_000_000
        day_s = now_s % _DAY_S
        is_today = day is not None and int(day) == (seconds - seconds % _DAY_S) * 1000
        images, image_bytes = today if is_today else (0, 0)
        due_in_s = max(0.0, float(due or 0) / 1000 - now_s)
        return OwnerUse(due_in_s, int(images), int(image_bytes), int(tasks or 0), _DAY_S - day_s)
