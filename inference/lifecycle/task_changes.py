"""Changes of tasks as they happen, in any process: the scripts of the task store publish the ids while somebody listens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.client import PubSub

_CONFIRMATION_TIMEOUT_S = 5.0
#: Number of ids after which a reading ends, although more have come.
_MOST_IDS = 10_000


class TaskChanges:
    """Channel with the ids of tasks that were accepted, or whose status changed."""

    def __init__(self, client: redis.Redis, key_prefix: str) -> None:
        self.channel = f"{key_prefix}:changes"
        self._redis = client

    @contextmanager
    def subscribe(self) -> Iterator[ChangeSubscription]:
        """Subscribe; changes that happen from then on are read. Raises redis.RedisError, OSError, as each reading does."""
        with self._redis.pubsub() as pubsub:  # type: ignore[no-untyped-call]
            pubsub.subscribe(self.channel)
            if pubsub.get_message(timeout=_CONFIRMATION_TIMEOUT_S) is None:  # a record that is read before may change unseen
                raise redis.TimeoutError("the subscription was not confirmed")
            yield ChangeSubscription(pubsub)


class ChangeSubscription:
    """Reader of the channel. A server drops subscribers that read too slowly; then a reading raises an error."""

    def __init__(self, pubsub: PubSub) -> None:
        self._pubsub = pubsub

    def read(self, timeout_s: float) -> list[str]:
        """Return the ids that have come, in order and with repetitions; wait for the first for up to `timeout_s`."""
        ids: list[str] = []
        message: dict[str, Any] | None = self._pubsub.get_message(timeout=timeout_s)
        while message is not None:
            if message["type"] == "message":
                ids += message["data"].decode().split(" ")
            message = self._pubsub.get_message(timeout=0) if len(ids) < _MOST_IDS else None
        return ids
