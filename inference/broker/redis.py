"""Celery's broker on Redis: kombu's virtual transport puts each message as JSON on a list."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Collection, Mapping
from typing import Any, cast

import orjson
import redis

from inference.broker import HIGHEST_PRIORITY, USUAL_PRIORITY, envelope
from inference.domain import QueueMessage
from inference.runtime.redis import unavailable_when_down
from inference.task_store.protocol import Enqueue

#: kombu's priority steps: 0 is the highest, and each but 0 has a list of its own.
_STEPS = (0, 3, 6, 9)
#: Messages that are read at a time while one is sought.
_SCANNED = 500
_SEPARATOR = "\x06\x16"


def wake_up_key(queue: str) -> str:
    """Return the key of the queue's wake-up list, on which a worker waits for messages.

    It has at most a token or two. A token is empty, and only tells that there may be messages.
    """
    return f"{queue}{_SEPARATOR}bell"


def _list_key(queue: str, step: int) -> str:
    return f"{queue}{_SEPARATOR}{step}" if step else queue


class RedisBroker:
    """`Broker` on Redis.

    Args:
        client: connection to the broker's server and database.
        shares_store: whether the task store has the same server and database.
    """

    has_priorities = True

    def __init__(self, client: redis.Redis, *, shares_store: bool) -> None:
        self._redis = client
        self._shares_store = shares_store

    def prepare(self, queue: str, message: QueueMessage, priority: int = USUAL_PRIORITY) -> Enqueue | None:
        return self._push(queue, message, priority) if self._shares_store else None

    def publish(self, queue: str, message: QueueMessage, priority: int = USUAL_PRIORITY, *, is_redelivered: bool = False) -> None:
        self._send(self._push(queue, message, priority, is_redelivered=is_redelivered))

    def resend(self, queue: str, message: envelope.Resent) -> None:
        native = HIGHEST_PRIORITY - USUAL_PRIORITY if message.priority is None else message.priority
        native = min(max(native, 0), HIGHEST_PRIORITY)
        self._send(
            _enqueue(
                queue,
                native,
                body=message.body,
                headers=message.headers,
                content_type=message.content_type,
                content_encoding=message.content_encoding,
                correlation_id=message.headers.get("id"),
            )
        )

    def _send(self, push: Enqueue) -> None:
        with unavailable_when_down(), self._redis.pipeline() as pipe:
            pipe.lpush(push.list_key, push.payload)
            pipe.lpush(push.wake_up_key, "")
            pipe.ltrim(push.wake_up_key, 0, 0)
            pipe.execute()

    def forget(self, queue: str, task_ids: Collection[str]) -> None:
        names = [task_id.encode() for task_id in task_ids]
        for step in _STEPS:
            key, start = _list_key(queue, step), 0
            with unavailable_when_down():
                while payloads := cast("list[bytes]", self._redis.lrange(key, start, start + _SCANNED - 1)):
                    for payload in payloads:
                        if any(name in payload for name in names):
                            self._replace(key, payload, self._without(queue, payload, task_ids))
                    start += _SCANNED

    def _without(self, queue: str, payload: bytes, task_ids: Collection[str]) -> bytes | None:
        """Return a message without these tasks; None if it has no other."""
        document = orjson.loads(payload)
        message = QueueMessage.from_kwargs(orjson.loads(base64.b64decode(document["body"]))[1])
        others = tuple(item for item in message.items if item.task_id not in task_ids)
        if not others:
            return None
        properties = document["properties"]
        is_redelivered = bool(properties["delivery_info"].get("redelivered"))
        rest, priority = QueueMessage(message.model, others), HIGHEST_PRIORITY - properties["priority"]
        return self._push(queue, rest, priority, is_redelivered=is_redelivered).payload

    def _replace(self, key: str, payload: bytes, other: bytes | None) -> None:
        """Replace a message in its place; do nothing if a worker has taken it meanwhile."""
        with self._redis.pipeline() as pipe:
            if other is not None:
                pipe.linsert(key, "BEFORE", cast("str", payload), cast("str", other))
            pipe.lrem(key, 1, cast("str", payload))
            pipe.execute()

    def get_depth(self, queue: str) -> int:
        with unavailable_when_down(), self._redis.pipeline(transaction=False) as pipe:
            for step in _STEPS:
                pipe.llen(_list_key(queue, step))
            return sum(pipe.execute())

    def _push(self, queue: str, message: QueueMessage, priority: int, *, is_redelivered: bool = False) -> Enqueue:
        own_id = envelope.message_id(message)
        return _enqueue(
            queue,
            HIGHEST_PRIORITY - priority,  # with Redis, kombu's highest priority is 0
            body=base64.b64encode(envelope.body(message)).decode(),
            headers=envelope.headers(message, own_id),
            content_type=envelope.CONTENT_TYPE,
            content_encoding=envelope.CONTENT_ENCODING,
            correlation_id=own_id,
            is_redelivered=is_redelivered,
        )


def _enqueue(
    queue: str,
    native_priority: int,
    *,
    body: str,
    headers: Mapping[str, Any],
    content_type: str | None,
    content_encoding: str | None,
    correlation_id: Any,
    is_redelivered: bool = False,
) -> Enqueue:
    step = max(step for step in _STEPS if step <= native_priority)
    delivery_info: dict[str, Any] = {"exchange": "", "routing_key": queue}
    if is_redelivered:
        delivery_info["redelivered"] = True  # as kombu marks the messages of a dead worker
    properties: dict[str, Any] = {
        "correlation_id": correlation_id,
        "reply_to": None,
        "delivery_mode": 2,
        "delivery_info": delivery_info,
        "priority": native_priority,
        "body_encoding": "base64",
        "delivery_tag": str(uuid.uuid4()),
    }
    document = {
        "body": body,
        "content-encoding": content_encoding,
        "content-type": content_type,
        "headers": headers,
        "properties": properties,
    }
    return Enqueue(_list_key(queue, step), orjson.dumps(document), wake_up_key(queue))
