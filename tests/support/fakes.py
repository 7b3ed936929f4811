"""Hand-written stand-ins for everything that is another server, each with the whole of its protocol."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from inference.broker import USUAL_PRIORITY
from inference.broker.envelope import Resent
from inference.domain import QueueMessage
from inference.errors import ObjectNotFound, ServiceUnavailable
from inference.sinks.protocol import NO_CONTEXTS, Refusal, SinkUnavailable, StoredResult
from inference.storage.protocol import too_large


class FakeObjectStore:
    """`ObjectStore` in memory."""

    is_local = False

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        #: by key, content type and metadata
        self.details: dict[str, tuple[str | None, dict[str, str]]] = {}
        self.retention_hours: float | None = None
        #: False: every call raises ServiceUnavailable
        self.available = True

    def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        is_durable: bool = True,
    ) -> None:
        del is_durable
        self._check(key)
        self.objects[key] = bytes(data)
        self.details[key] = (content_type, dict(metadata or {}))

    def apply_retention(self, hours: float | None) -> bool:
        self._check("uploads/")
        self.retention_hours = hours
        return False

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        self._check(key)
        if key not in self.objects:
            raise ObjectNotFound(f"there is no object {key}")
        if max_bytes is not None and len(self.objects[key]) > max_bytes:
            raise too_large(key, len(self.objects[key]), max_bytes)
        return self.objects[key]

    def size(self, key: str) -> int:
        return len(self.get(key))

    def put_url(self, key: str, *, lifetime_s: float) -> str:
        self._check(key)
        return f"https://objects.test/{key}?lifetime={lifetime_s:g}"

    def delete(self, key: str) -> None:
        self._check(key)
        self.objects.pop(key, None)

    def erase(self, key: str) -> None:
        self.delete(key)

    def copy(self, source: str, target: str) -> None:
        self.put(target, self.get(source))

    def list_keys(self, prefix: str, *, after: str = "", limit: int) -> list[str]:
        self._check(prefix)
        found = (key for key in self.objects if key.startswith(prefix) and "/" not in key.removeprefix(prefix))
        return sorted(key for key in found if key > after)[:limit]

    def ping(self) -> None:
        self._check("")

    def _check(self, key: str) -> None:
        if not self.available:
            raise ServiceUnavailable("the object store does not answer", retry_after_s=5)
        if key.startswith("/") or ".." in key.split("/"):
            raise ObjectNotFound(f"{key} is not a key of this store")


class FakeBroker:
    """`Broker` in memory, FIFO. Messages are published, as with RabbitMQ, not pushed by the record store."""

    def __init__(self) -> None:
        self.queues: dict[str, list[QueueMessage]] = defaultdict(list)
        #: of each task that came here, by its id
        self.priorities: dict[str, int] = {}
        #: tasks whose message replaces a lost one
        self.redelivered: set[str] = set()
        #: queue and message of each `resend`
        self.resent: list[tuple[str, Resent]] = []
        #: False: `publish` and `get_depth` raise ServiceUnavailable
        self.available = True

    has_priorities = True
    has_turns = False

    def get_owners(self, queue: str) -> set[str]:
        raise NotImplementedError(queue)

    def prepare(self, queue: str, message: QueueMessage, priority: int = USUAL_PRIORITY, *, owner: str = "") -> None:
        """None: the message is to be published."""

    def publish(
        self,
        queue: str,
        message: QueueMessage,
        priority: int = USUAL_PRIORITY,
        *,
        owner: str = "",
        is_redelivered: bool = False,
    ) -> None:
        self._check()
        if is_redelivered:
            self.redelivered.update(item.task_id for item in message.items)
        self.priorities |= {item.task_id: priority for item in message.items}
        self.queues[queue].append(message)

    def resend(self, queue: str, message: Resent) -> None:
        self._check()
        self.resent.append((queue, message))

    def forget(self, queue: str, task_ids: Collection[str]) -> None:
        self._check()
        left = [(m, tuple(item for item in m.items if item.task_id not in task_ids)) for m in self.queues[queue]]
        self.queues[queue] = [QueueMessage(message.model, items) for message, items in left if items]

    def get_depth(self, queue: str) -> int:
        self._check()
        return len(self.queues[queue])

    def _check(self) -> None:
        if not self.available:
            raise ServiceUnavailable("the broker does not answer", retry_after_s=1)


class FakeSink:
    """`ResultSink` that keeps its documents.

    `failures` says how many of the next writes find it down; `refused`, by task id, what it will never take and why; `stuck`
    are ids of tasks that it does not take now.
    """

    def __init__(self, name: str = "fake") -> None:
        self.name = name
        self.documents: list[dict[str, Any]] = []
        self.failures = 0
        self.refused: dict[str, str] = {}
        self.stuck: set[str] = set()
        #: False: `erase` says that it cannot
        self.can_erase = True
        self.is_closed = False
        self._lock = threading.Lock()

    def write(self, documents: Sequence[dict[str, Any]], contexts: Mapping[str, str] = NO_CONTEXTS) -> list[Refusal]:
        with self._lock:
            if self.failures > 0:
                self.failures -= 1
                raise SinkUnavailable(f"{self.name} was told to fail")
            taken = [document for document in documents if document["task_id"] not in self.stuck | self.refused.keys()]
            self.documents += taken
            given = {document["task_id"] for document in documents}
            refusals = [Refusal(task_id, why) for task_id, why in self.refused.items() if task_id in given]
            if self.stuck & given:
                delivered = [document["task_id"] for document in taken]
                raise SinkUnavailable(f"{self.name} is stuck", delivered=delivered, refusals=refusals)
            return refusals

    def erase(self, results: Sequence[StoredResult]) -> list[bool]:
        with self._lock:
            if self.failures > 0:
                self.failures -= 1
                raise SinkUnavailable(f"{self.name} was told to fail")
            erased = {result.task_id for result in results}
            self.documents = [document for document in self.documents if document["task_id"] not in erased]
            return [self.can_erase] * len(results)

    def close(self) -> None:
        self.is_closed = True

    @property
    def task_ids(self) -> list[str]:
        return [document["task_id"] for document in self.documents]
