"""Putting a predict message on the queue.

The message is Celery's protocol 2 in kombu's Redis form (Celery's documentation, "Message Protocol"; kombu's virtual transport
puts it into JSON). It is built here, not by `send_task`, so that the record store can push it in the same step as the record;
a test holds it equal to what Celery sends.
"""

from __future__ import annotations

import base64
import os
import socket
import uuid
from typing import Any, Protocol

import orjson
import redis

from inference.messages import PREDICT_TASK, QueueMessage
from inference.task_store.protocol import Enqueue
from inference.task_store.redis_store import unavailable_when_down

#: kombu's priority steps on Redis; each but 0 has a list of its own.
_PRIORITY_STEPS = (0, 3, 6, 9)
_PRIORITY_SEPARATOR = "\x06\x16"


class Broker(Protocol):
    """Where predict messages go."""

    def prepare(self, queue: str, message: QueueMessage) -> Enqueue | None:
        """The message for a push by the record store; None where the broker is another server: then `publish` it."""

    def publish(self, queue: str, message: QueueMessage) -> None:
        """Returns when the broker has it. Raises ServiceUnavailable."""

    def depth(self, queue: str) -> int:
        """Messages that no worker has taken. Raises ServiceUnavailable."""


class RedisBroker:
    """Celery's Redis broker.

    Args:
        client: connected to the broker's server and database.
        shares_store: the record store is that server and database too.
    """

    def __init__(self, client: redis.Redis, *, shares_store: bool) -> None:
        self._redis = client
        self._shares_store = shares_store
        self._origin = f"{os.getpid()}@{socket.gethostname()}"

    def prepare(self, queue: str, message: QueueMessage) -> Enqueue | None:
        return Enqueue(queue, self._payload(queue, message)) if self._shares_store else None

    def publish(self, queue: str, message: QueueMessage) -> None:
        with unavailable_when_down():
            self._redis.lpush(queue, self._payload(queue, message))

    def depth(self, queue: str) -> int:
        with unavailable_when_down(), self._redis.pipeline(transaction=False) as pipe:
            for step in _PRIORITY_STEPS:
                pipe.llen(f"{queue}{_PRIORITY_SEPARATOR}{step}" if step else queue)
            return sum(pipe.execute())

    def _payload(self, queue: str, message: QueueMessage) -> bytes:
        kwargs = message.to_kwargs()
        task_id = message.items[0].task_id
        embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
        envelope: dict[str, Any] = {
            "body": base64.b64encode(orjson.dumps([[], kwargs, embed])).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": self._headers(task_id, kwargs),
            "properties": {
                "correlation_id": task_id,
                "reply_to": None,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": queue},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
            },
        }
        return orjson.dumps(envelope)

    def _headers(self, task_id: str, kwargs: dict[str, Any]) -> dict[str, Any]:
        return {
            "lang": "py",
            "task": PREDICT_TASK,
            "id": task_id,
            "shadow": None,
            "eta": None,
            "expires": None,
            "group": None,
            "group_index": None,
            "retries": 0,
            "timelimit": [None, None],
            "root_id": task_id,
            "parent_id": None,
            "argsrepr": "()",
            "kwargsrepr": repr(kwargs),
            "origin": self._origin,
            "ignore_result": True,
            "replaced_task_nesting": 0,
            "stamped_headers": None,
            "stamps": {},
        }
