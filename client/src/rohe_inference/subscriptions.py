"""Streams of server-sent events: reading them, and opening a stream again that broke."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Generic, TypeVar

from rohe_inference.batches import BatchItem, BatchProgress
from rohe_inference.errors import ConnectionFailed, UnexpectedAnswer
from rohe_inference.messages import Reply, Request
from rohe_inference.results import Json
from rohe_inference.retries import Retries
from rohe_inference.service import TasksChanged
from rohe_inference.tasks import Task
from rohe_inference.transport import EVENT_STREAM

E = TypeVar("E")

#: The service sends a comment each 15 seconds: a stream that is silent for longer than this is broken.
_SILENCE_S = 20.0
#: Pause before a stream that ended is opened again, until the service names another, in seconds.
_DEFAULT_PAUSE_S = 1.0
_MS_PER_S = 1000


class Subscription(Generic[E]):
    """State of one subscription, over all of its connections."""

    def __init__(self, request: Request, retries: Retries) -> None:
        """`request` opens the stream."""
        self._request = request
        self._retries = retries
        self._attempts = retries.begin()
        self._last_id = ""
        self._pause_s = _DEFAULT_PAUSE_S
        self.is_ended = False

    def request(self) -> Request:
        """Make the request that opens the stream, also again."""
        headers: Mapping[str, str] = {**self._request.headers, "Accept": EVENT_STREAM}
        if self._last_id:
            headers = {**headers, "Last-Event-ID": self._last_id}
        return replace(self._request, headers=headers, patience_s=_SILENCE_S)

    def receive(self, name: str, data: str, event_id: str, retry_ms: int | None) -> list[E]:
        """Take an event of the stream; gives the events for the caller. Raises UnexpectedAnswer."""
        if retry_ms is not None:
            self._pause_s = retry_ms / _MS_PER_S
        if not data:
            return []
        self._retries.note_answer()
        self._attempts = self._retries.begin()
        self._last_id = event_id
        try:
            return self.interpret(name, json.loads(data))
        except (KeyError, TypeError, ValueError) as error:
            raise UnexpectedAnswer(f"the event {name} is not as this client knows it ({error!r}): {data[:200]}") from error

    def interpret(self, name: str, document: Any) -> list[E]:
        """Read one event; sets `is_ended` after the last one."""
        raise NotImplementedError

    def pause_after(self, failure: Reply | ConnectionFailed | None) -> float:
        """Return the seconds after which the stream is opened again.

        Args:
            failure: the refusal, or how the connection ended; None if the service ended the stream, since it stops.

        Raises:
            ApiError, UnexpectedAnswer, ConnectionFailed: opening it again does not help, or the time for that is over.
        """
        if failure is None:
            return self._pause_s
        delay_s = self._attempts.delay_after(failure)
        if delay_s is not None:
            return delay_s
        if isinstance(failure, ConnectionFailed):
            raise failure
        failure.check()
        raise UnexpectedAnswer(f"the answer has no events: it is {failure.media_type or 'without Content-Type'}")


class TaskSubscription(Subscription[Task]):
    """Changes of one task."""

    _last: Task | None = None

    def interpret(self, name: str, document: Json) -> list[Task]:
        """Read the event `task`; a state that came before, on an earlier connection, is left out."""
        if name != "task":
            return []
        task = Task.from_json(document)
        is_new = self._last is None or self._last.status != task.status
        self._last, self.is_ended = task, task.is_ended
        return [task] if is_new else []


class BatchSubscription(Subscription[BatchProgress | BatchItem]):
    """Items of one batch as they end, and its counts."""

    def __init__(self, request: Request, retries: Retries) -> None:
        """See Subscription."""
        super().__init__(request, retries)
        self._seen: set[int] = set()
        self._last: BatchProgress | None = None

    def interpret(self, name: str, document: Json) -> list[BatchProgress | BatchItem]:
        """Read the events `batch` and `item`, without those of an earlier connection."""
        if name == "item" and document["index"] not in self._seen:
            self._seen.add(document["index"])
            return [BatchItem.from_json(document, document["index"])]
        if name == "batch":
            progress = BatchProgress.from_json(document)
            is_new = progress != self._last
            self._last, self.is_ended = progress, progress.is_ended
            return [progress] if is_new else []
        return []


class ServiceSubscription(Subscription[TasksChanged]):
    """Changes of all tasks."""

    def interpret(self, name: str, document: Json) -> list[TasksChanged]:
        """Read the event `tasks`."""
        return [TasksChanged.from_json(document)] if name == "tasks" else []
