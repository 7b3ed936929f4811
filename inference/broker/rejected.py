"""Rejected messages: queue messages that no worker can read, kept with the reason until an operator replays or discards them.

Redis keys, in the task store:

    PREFIX:rejected         hash: id → the message as JSON (`RejectedMessage`)
    PREFIX:rejected:order   sorted set: ids by the time of rejection, µs
"""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import redis

from inference.broker import Broker
from inference.broker.envelope import Resent
from inference.errors import InvalidRequest, TaskNotFound
from inference.runtime.documents import known_members
from inference.runtime.redis import unavailable_when_down

#: Limit for the number of messages; the oldest are dropped.
MAX_MESSAGES = 1_000
#: Limit for one message as JSON; of a larger one only the beginning is kept, and it cannot be replayed.
MAX_MESSAGE_BYTES = 2**16
_SHOWN_CHARACTERS = 1024
#: Member of a message's content with the raw text of a message that cannot be read; it replaces headers and body.
UNREADABLE = "unreadable"
_ID_PREFIX = "message-"


@dataclass(frozen=True)
class RejectedMessage:
    """A message that was put aside.

    Args:
        content: `body` (text, base64), `headers`, `content_type`, `content_encoding` and `priority` of a message that can be
            sent again; else only `unreadable`, the part of it that is kept.
    """

    message_id: str
    queue: str
    reason: str
    rejected_at_ms: int
    content: Mapping[str, Any]


class RejectedMessages:
    """Messages that workers have put aside; at most `MAX_MESSAGES`."""

    def __init__(self, client: redis.Redis, key_prefix: str) -> None:
        self._redis = client
        self._hash = f"{key_prefix}:rejected"
        self._order = f"{key_prefix}:rejected:order"

    def add(self, queue: str, content: Mapping[str, Any], reason: str) -> str:
        """Keep a message; return its id. Raises ServiceUnavailable."""
        message_id, at_ms = f"{_ID_PREFIX}{uuid.uuid4().hex}", round(time.time() * 1000)
        text = json.dumps(content, default=repr)
        if len(text) > MAX_MESSAGE_BYTES:
            content = {UNREADABLE: text[:_SHOWN_CHARACTERS]}
            reason = f"{reason}; only the beginning of its {len(text)} bytes is kept"
        message = json.dumps(asdict(RejectedMessage(message_id, queue, reason, at_ms, content)), default=repr)
        with unavailable_when_down(), self._redis.pipeline() as pipe:
            pipe.hset(self._hash, message_id, message)
            pipe.zadd(self._order, {message_id: time.time_ns() // 1000})
            pipe.zrange(self._order, 0, -MAX_MESSAGES - 1)
            surplus = pipe.execute()[-1]
            if surplus:
                self._remove(*surplus)
        return message_id

    def count(self) -> int:
        """Return how many messages are kept. Raises ServiceUnavailable."""
        with unavailable_when_down():
            return int(self._redis.hlen(self._hash))

    def list(self, limit: int) -> list[RejectedMessage]:
        """Return the oldest messages, up to `limit`. Raises ServiceUnavailable."""
        with unavailable_when_down():
            ids: Any = self._redis.zrange(self._order, 0, limit - 1)
            found: Any = self._redis.hmget(self._hash, ids) if ids else []
        return [_read(one) for one in found if one is not None]

    def get(self, message_id: str) -> RejectedMessage:
        """Return a message. Raises TaskNotFound, ServiceUnavailable."""
        with unavailable_when_down():
            found: Any = self._redis.hget(self._hash, message_id)
        if found is None:
            raise TaskNotFound(f"there is no rejected message {message_id}")
        return _read(found)

    def replay(self, message_id: str, broker: Broker) -> str:
        """Send a message to its queue again, unchanged; return the queue.

        Raises:
            InvalidRequest: the message cannot be sent.
            TaskNotFound, ServiceUnavailable
        """
        message = self.get(message_id)
        if "body" not in message.content:
            raise InvalidRequest(f"{message_id} cannot be sent again: {message.reason}")
        try:
            broker.resend(message.queue, Resent(**message.content))
        except TypeError as error:  # a number of more than 64 bits, for example
            raise InvalidRequest(f"{message_id} cannot be sent again: {error}") from error
        self._remove(message_id)
        return message.queue

    def discard(self, message_id: str) -> None:
        """Delete a message. Raises TaskNotFound, ServiceUnavailable."""
        self.get(message_id)
        self._remove(message_id)

    def discard_old(self, after_s: float) -> int:
        """Delete the messages that were rejected more than `after_s` seconds ago; returns how many. Raises ServiceUnavailable."""
        with unavailable_when_down():
            old: Any = self._redis.zrangebyscore(self._order, "-inf", (time.time() - after_s) * 1e6)
        if old:
            self._remove(*old)
        return len(old)

    def forget(self, task_ids: Collection[str]) -> None:
        """Delete the messages that name one of these tasks. Raises ServiceUnavailable."""
        with unavailable_when_down():
            found: Any = self._redis.hscan_iter(self._hash)
            named = [message_id for message_id, text in found if any(task_id in _whole_text(text) for task_id in task_ids)]
        if named:
            self._remove(*named)

    def _remove(self, *ids: str | bytes) -> None:
        with unavailable_when_down(), self._redis.pipeline() as pipe:
            pipe.hdel(self._hash, *ids)
            pipe.zrem(self._order, *ids)
            pipe.execute()


def _read(message: bytes) -> RejectedMessage:
    return RejectedMessage(**known_members(RejectedMessage, json.loads(message)))


def _whole_text(message: bytes) -> str:
    """Return a message as text, with its body as it was before the transport."""
    body = json.loads(message)["content"].get("body", "")
    return f"{message.decode()} {base64.b64decode(body).decode(errors='replace')}"


def is_rejected_id(text: str) -> bool:
    """Return whether an id is that of a rejected message, not of a task."""
    return text.startswith(_ID_PREFIX)
