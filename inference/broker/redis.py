"""Celery's Redis broker: kombu's virtual transport puts each message as JSON on a list."""

from __future__ import annotations

import base64
import uuid
from typing import Any

import orjson
import redis

from inference.broker import HIGHEST_PRIORITY, USUAL_PRIORITY, envelope
from inference.messages import QueueMessage
from inference.redis_client import unavailable_when_down
from inference.task_store.protocol import Enqueue

#: kombu's priority steps; 0 goes first, and each but 0 has a list of its own.
_STEPS = (0, 3, 6, 9)
_SEPARATOR = "\x06\x16"


def bell_key(queue: str) -> str:
    """Where a worker waits for messages of `queue`: a list with at most a token or two, which mean nothing but "look"."""
    return f"{queue}{_SEPARATOR}bell"


def _list_key(queue: str, step: int) -> str:
    return f"{queue}{_SEPARATOR}{step}" if step else queue


class RedisBroker:
    """`Broker` on Redis.

    Args:
        client: connected to the broker's server and database.
        shares_store: the record store is that server and database too.
    """

    has_priorities = True

    def __init__(self, client: redis.Redis, *, shares_store: bool) -> None:
        self._redis = client
        self._shares_store = shares_store

    def prepare(self, queue: str, message: QueueMessage, priority: int = USUAL_PRIORITY) -> Enqueue | None:
        return self._push(queue, message, priority) if self._shares_store else None

    def publish(self, queue: str, message: QueueMessage, priority: int = USUAL_PRIORITY) -> None:
        push = self._push(queue, message, priority)
        with unavailable_when_down(), self._redis.pipeline() as pipe:
            pipe.lpush(push.list_key, push.payload)
            pipe.lpush(push.bell_key, "")
            pipe.ltrim(push.bell_key, 0, 0)
            pipe.execute()

    def depth(self, queue: str) -> int:
        with unavailable_when_down(), self._redis.pipeline(transaction=False) as pipe:
            for step in _STEPS:
                pipe.llen(_list_key(queue, step))
            return sum(pipe.execute())

    def _push(self, queue: str, message: QueueMessage, priority: int) -> Enqueue:
        native = HIGHEST_PRIORITY - priority  # kombu's Redis counts the other way
        step = max(step for step in _STEPS if step <= native)
        own_id = envelope.message_id(message)
        properties: dict[str, Any] = {
            "correlation_id": own_id,
            "reply_to": None,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": native,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        }
        document = {
            "body": base64.b64encode(envelope.body(message)).decode(),
            "content-encoding": envelope.CONTENT_ENCODING,
            "content-type": envelope.CONTENT_TYPE,
            "headers": envelope.headers(message, own_id),
            "properties": properties,
        }
        return Enqueue(_list_key(queue, step), orjson.dumps(document), bell_key(queue))
