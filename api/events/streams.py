"""Open streams, and the subjects that they show: each subject is read once for all of its streams."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from inference.task_store import TaskState


class EventStream:
    """Stream of one client.

    Args:
        leave: called with the stream when it is closed, once.
        owner: of the client's key; empty without keys.
        ends_on_drain: whether the stream ends when the API is about to end.

    Attributes:
        is_closed: the stream is to end after the events that are known now.
        is_still_allowed: says whether the client's key is still valid; None without a key.
        is_gone: the client has disconnected.
    """

    def __init__(self, leave: Callable[[EventStream], None], *, owner: str, ends_on_drain: bool) -> None:
        self.owner = owner
        self.ends_on_drain = ends_on_drain
        self.is_closed = False
        self.is_gone = False
        self.is_still_allowed: Callable[[], bool] | None = None
        self._leave = leave
        self._changed = threading.Event()
        self._stop_watch: Callable[[], None] | None = None

    def watch(self, client: Any) -> None:
        """Let the stream end when its client disconnects.

        Args:
            client: the `PacedSocket` of the connection; None if the server is another one.
        """
        if client is not None:
            self._stop_watch = client.watch_end(self._client_has_gone)

    def wake(self) -> None:
        """Let `wait` return True."""
        self._changed.set()

    def end(self) -> None:
        """Let the stream end after the events that are known now."""
        self.is_closed = True
        self._changed.set()

    def end_if_revoked(self) -> None:
        """Let the stream end if the client's key has been revoked or changed, or has expired."""
        if self.is_still_allowed is not None and not self.is_closed and not self.is_still_allowed():
            self.end()

    def wait(self, timeout_s: float) -> bool:
        """Wait until there may be new events; returns False after the timeout."""
        is_changed = self._changed.wait(timeout_s)
        self._changed.clear()
        return is_changed

    def close(self) -> None:
        """Free the stream's place; further calls do nothing."""
        if self._stop_watch is not None:
            self._stop_watch()
            self._stop_watch = None
        self._leave(self)

    def _client_has_gone(self) -> None:
        self.is_gone = True
        self.end()


class Closable(Protocol):
    """Object with a method to close it."""

    def close(self) -> None:
        """Close it."""


@contextmanager
def closed_on_error(opened: Closable) -> Iterator[None]:
    """Close a stream or a waiter if the block raises."""
    try:
        yield
    except BaseException:
        opened.close()
        raise


class Subject:
    """Data that some streams show, read once for all of them.

    Args:
        key: the same for all streams that can share it.
    """

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.streams: set[EventStream] = set()

    def wake(self) -> None:
        """Wake the streams."""
        for stream in tuple(self.streams):
            stream.wake()


class TaskWatcher(Subject, ABC):
    """Subject that shows certain tasks."""

    def __init__(self, key: Hashable, task_ids: Collection[str]) -> None:
        super().__init__(key)
        self.task_ids = task_ids

    @abstractmethod
    def take_state(self, task_id: str, state: TaskState | None) -> None:
        """Take the state of one of the tasks; None if it has no record."""
