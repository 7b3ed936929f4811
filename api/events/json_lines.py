"""A batch as JSON Lines: its items as they end, then its counts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Protocol

from api.events.batch_subject import BatchItems, BatchSubject
from api.events.encoding import HEARTBEAT_S, PAUSE_S, encode
from api.events.streams import EventStream
from api.views.batch import GONE, REFUSED, batch_head, ended_item_view
from inference.domain import BatchRequest, TaskStatus
from inference.errors import ServiceUnavailable
from inference.lifecycle.replies import BatchWaiter
from inference.task_store import SubmissionStore

JSON_LINES = "application/jsonl"


class LineSource(Protocol):
    """Items of one batch, for one answer."""

    @property
    def are_all_sent(self) -> bool:
        """Whether every item has ended and was returned."""

    def new_lines(self) -> Iterator[bytes]:
        """Yield the lines of items that have ended since the last call, some at a time. Raises ServiceUnavailable."""

    def head(self) -> dict[str, Any]:
        """Return the id, the status and the counts of the batch."""


class StoredLines:
    """Items that are read from the task store when they have ended."""

    def __init__(self, subject: BatchSubject, store: SubmissionStore) -> None:
        self._items = BatchItems(subject, store, with_vectors=True)
        self.head = subject.head

    @property
    def are_all_sent(self) -> bool:
        """Whether every item has ended and was returned."""
        return self._items.are_all_sent

    def new_lines(self) -> Iterator[bytes]:
        """Yield the lines of new items. Raises ServiceUnavailable."""
        for items in self._items.new_items():
            yield b"".join(text + b"\n" for _, text in items)


class ReplyLines:
    """Items of a batch that this process has just accepted: their replies have all that the lines say.

    Args:
        store: knows which tasks run, if the answer ends before the batch.
    """

    def __init__(self, batch: BatchRequest, waiter: BatchWaiter, store: SubmissionStore) -> None:
        self._batch = batch
        self._waiter = waiter
        self._store = store
        self._tasks = {entry.task_id: (index, entry) for index, entry in enumerate(batch.entries) if not isinstance(entry, dict)}
        self._refused = [(index, entry) for index, entry in enumerate(batch.entries) if isinstance(entry, dict)]
        self._sent = 0

    @property
    def are_all_sent(self) -> bool:
        """Whether every item has ended and was returned."""
        return not self._refused and self._sent == len(self._tasks)

    def new_lines(self) -> Iterator[bytes]:
        """Yield the lines of all new items together."""
        refused, self._refused = self._refused, []
        items = [(index, ended_item_view(entry, None)) for index, entry in refused]
        for task_id in list(self._waiter.ended)[self._sent :]:
            index, task = self._tasks[task_id]
            items.append((index, ended_item_view(task, self._waiter.ended[task_id].outcome)))
            self._sent += 1
        if items:
            yield b"".join(encode({"index": index, **view}) + b"\n" for index, view in items)

    def head(self) -> dict[str, Any]:
        """Return the id, the status and the counts of the batch; tasks of which the store tells nothing count as queued."""
        ended = {task_id: one.outcome.status.value for task_id, one in self._waiter.ended.items()}
        others = self._states([task_id for task_id in self._tasks if task_id not in ended])
        refused = [REFUSED] * (len(self._batch.entries) - len(self._tasks))
        return batch_head(self._batch.batch_id, [*(ended | others).values(), *refused])

    def _states(self, task_ids: list[str]) -> dict[str, str]:
        queued = dict.fromkeys(task_ids, TaskStatus.QUEUED.value)
        try:
            states = self._store.get_states(task_ids) if task_ids else []
        except ServiceUnavailable:
            return queued
        return {task_id: state.status.value if state else GONE for task_id, state in zip(task_ids, states, strict=True)}


def batch_lines(stream: EventStream, source: LineSource, timeout_s: float) -> Iterator[bytes]:
    """Yield a line for each item when it has ended, and one with the counts at the end of the batch, or after `timeout_s`."""
    ends_at_s = time.monotonic() + timeout_s
    yield b""  # sends the head of the answer
    while True:
        pause_s = HEARTBEAT_S
        try:
            yield from source.new_lines()
        except ServiceUnavailable:
            pause_s = PAUSE_S
        stream.end_if_revoked()  # the hub does it for streams of stored batches alone
        left_s = ends_at_s - time.monotonic()
        if source.are_all_sent or stream.is_closed or left_s <= 0:
            break
        stream.wait(min(left_s, pause_s))
    head = source.head()
    yield encode(head if source.are_all_sent else head | {"status": "running"}) + b"\n"
