"""Celery's broker on Redis: kombu's virtual transport puts each message as JSON on a list.

A message with an owner is put on a list of the owner instead, so that owners take turns: see tasks/transport/claim.lua.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import orjson
import redis

from inference.broker import HIGHEST_PRIORITY, USUAL_PRIORITY, envelope
from inference.domain import QueueMessage
from inference.runtime.redis import unavailable_when_down
from inference.task_store.protocol import Enqueue
from inference.task_store.scripts import Scripts

#: kombu's priority steps: 0 is the highest, and each but 0 has a list of its own.
_STEPS = (0, 3, 6, 9)
#: Messages that are read at a time while one is sought.
_SCANNED = 500
_SEPARATOR = "\x06\x16"
#: Script that counts, or deletes, the messages in the lists of a queue.
QUEUE_LISTS = (Path(__file__).parent / "queue_lists.lua").read_text(encoding="utf-8")


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
        has_turns: whether owners take turns; workers with kombu's own transport do not know them.
        key_prefix: begin of all keys, which is kombu's `global_keyprefix`.
    """

    has_priorities = True

    def __init__(self, client: redis.Redis, *, shares_store: bool, has_turns: bool = True, key_prefix: str = "") -> None:
        self._redis = client
        self._key_prefix = key_prefix
        self._shares_store = shares_store
        self.has_turns = has_turns

    def prepare(self, queue: str, message: QueueMessage, priority: int = USUAL_PRIORITY, *, owner: str = "") -> Enqueue | None:
        return self._push(queue, message, priority, owner) if self._shares_store else None

    def publish(
        self,
        queue: str,
        message: QueueMessage,
        priority: int = USUAL_PRIORITY,
        *,
        owner: str = "",
        is_redelivered: bool = False,
    ) -> None:
        self._send(self._push(queue, message, priority, owner, is_redelivered=is_redelivered), owner)

    def resend(self, queue: str, message: envelope.Resent) -> None:
        native = HIGHEST_PRIORITY - USUAL_PRIORITY if message.priority is None else message.priority
        native = min(max(native, 0), HIGHEST_PRIORITY)
        self._send(
            self._enqueue(
                queue,
                native,
                body=message.body,
                headers=message.headers,
                content_type=message.content_type,
                content_encoding=message.content_encoding,
                correlation_id=message.headers.get("id"),
            )
        )

    def _send(self, push: Enqueue, owner: str = "") -> None:
        self._scripts.run("push", push.list_key, push.payload, push.wake_up_key, push.turns_key, owner, push.cost)

    @cached_property
    def _scripts(self) -> Scripts:
        return Scripts(self._redis, self._key_prefix)

    def forget(self, queue: str, task_ids: Collection[str]) -> None:
        names = [task_id.encode() for task_id in task_ids]
        for key in self._lists(queue):
            start = 0
            with unavailable_when_down():
                while payloads := cast("list[bytes]", self._redis.lrange(key, start, start + _SCANNED - 1)):
                    start += len(payloads)
                    for payload in payloads:
                        if any(name in payload for name in names) and (message := _read(payload)) is not None:
                            rest = self._without(queue, message, payload, task_ids)
                            self._replace(key, payload, rest)
                            start -= rest is None  # the following messages have moved up

    def _without(self, queue: str, message: QueueMessage, payload: bytes, task_ids: Collection[str]) -> bytes | None:
        """Return a message without these tasks; None if it has no other."""
        others = tuple(item for item in message.items if item.task_id not in task_ids)
        if not others:
            return None
        properties = orjson.loads(payload)["properties"]
        is_redelivered = bool(properties["delivery_info"].get("redelivered"))
        rest, priority = QueueMessage(message.model, others), HIGHEST_PRIORITY - properties["priority"]
        return self._push(queue, rest, priority, owner="", is_redelivered=is_redelivered).payload

    def _replace(self, key: str, payload: bytes, other: bytes | None) -> None:
        """Replace a message in its place; do nothing if a worker has taken it meanwhile."""
        with self._redis.pipeline() as pipe:
            if other is not None:
                pipe.linsert(key, "BEFORE", cast("str", payload), cast("str", other))
            pipe.lrem(key, 1, cast("str", payload))
            pipe.execute()

    def _lists(self, queue: str) -> Iterator[str]:
        """Yield the names of the lists that have messages of a queue, those of owners too."""
        for list_key in self._usual_lists(queue):
            yield list_key
            with unavailable_when_down():
                owners = cast("list[bytes]", self._redis.zrange(_turns_key(list_key), 0, -1))
            yield from (_owner_list(list_key, owner.decode()) for owner in owners if owner)

    def _usual_lists(self, queue: str) -> list[str]:
        """Return the names of kombu's lists of a queue, that of the highest priority first."""
        return [_list_key(self._key_prefix + queue, step) for step in _STEPS]

    def get_owners(self, queue: str) -> set[str]:
        with unavailable_when_down(), self._redis.pipeline(transaction=False) as pipe:
            for list_key in self._usual_lists(queue):
                pipe.zrange(_turns_key(list_key), 0, -1)
                pipe.llen(list_key)
            turns, lengths = (found := pipe.execute())[::2], found[1::2]
        return {owner.decode() for owners in turns for owner in owners if owner} | ({""} if any(lengths) else set())

    def get_depth(self, queue: str) -> int:
        lists = self._usual_lists(queue)
        with unavailable_when_down():
            if self.has_turns:
                depth: Any = self._redis.eval(QUEUE_LISTS, len(lists), *lists)
                return int(depth)
            # Messages that are left in lists of owners, of a time with turns, wait for nobody: their tasks are queued again.
            with self._redis.pipeline(transaction=False) as pipe:
                for key in lists:
                    pipe.llen(key)
                return sum(pipe.execute())

    def _push(self, queue: str, message: QueueMessage, priority: int, owner: str, *, is_redelivered: bool = False) -> Enqueue:
        own_id = envelope.message_id(message)
        return self._enqueue(
            queue,
            HIGHEST_PRIORITY - priority,  # with Redis, kombu's highest priority is 0
            body=base64.b64encode(envelope.body(message)).decode(),
            headers=envelope.headers(message, own_id),
            content_type=envelope.CONTENT_TYPE,
            content_encoding=envelope.CONTENT_ENCODING,
            correlation_id=own_id,
            is_redelivered=is_redelivered,
            owner=owner,
            cost=len(message.items),
        )

    def _enqueue(
        self,
        queue: str,
        native_priority: int,
        *,
        body: str,
        headers: Mapping[str, Any],
        content_type: str | None,
        content_encoding: str | None,
        correlation_id: Any,
        is_redelivered: bool = False,
        owner: str = "",
        cost: int = 1,
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
        keyed = self._key_prefix + queue
        list_key, payload = _list_key(keyed, step), orjson.dumps(document)
        if not (owner and self.has_turns):
            return Enqueue(list_key, payload, wake_up_key(keyed))
        return Enqueue(_owner_list(list_key, owner), payload, wake_up_key(keyed), turns_key=_turns_key(list_key), cost=cost)


def _read(payload: bytes) -> QueueMessage | None:
    """Return a message of this service; None for another's, whose tasks a worker drops if they were erased."""
    try:
        return QueueMessage.from_kwargs(orjson.loads(base64.b64decode(orjson.loads(payload)["body"]))[1])
    except (AttributeError, KeyError, TypeError, ValueError, IndexError):
        return None


def _owner_list(list_key: str, owner: str) -> str:
    return f"{list_key}{_SEPARATOR}of{_SEPARATOR}{owner}"


def _turns_key(list_key: str) -> str:
    return f"{list_key}{_SEPARATOR}turns"
