"""Events of a batch: its counts, and each of its items when it has ended."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

from api.events.encoding import encode, event
from api.events.streams import TaskWatcher
from api.views.batch import GONE, batch_head, item_view, status_without_task
from inference.domain import BatchRecord, TaskStatus
from inference.task_store import SubmissionStore, TaskState

#: Items whose records a stream reads at a time: the memory of a stream, whatever the size of its batch.
_CHUNK = 32
_ENDED = "ended"
_OPEN = {TaskStatus.QUEUED.value, TaskStatus.RUNNING.value}


class BatchSubject(TaskWatcher):
    """A batch. It keeps no records: a stream reads those of the items that it sends.

    Attributes:
        ended: indexes of the items that have ended, in the order in which that was seen.
    """

    def __init__(self, batch: BatchRecord) -> None:
        super().__init__(self.key_of(batch.batch_id), batch.task_ids)
        self.batch = batch
        queued = TaskStatus.QUEUED.value
        self._statuses = [queued if isinstance(entry, str) else status_without_task(entry) for entry in batch.entries]
        self._indexes = {entry: index for index, entry in enumerate(batch.entries) if isinstance(entry, str)}
        self.ended = [index for index, status in enumerate(self._statuses) if status != queued]
        self._lock = threading.Lock()

    @staticmethod
    def key_of(batch_id: str) -> Hashable:
        """Return the key of the subject."""
        return "batch", batch_id

    @property
    def has_ended(self) -> bool:
        """Whether every item has ended."""
        return len(self.ended) == len(self.batch.entries)

    def head(self) -> dict[str, Any]:
        """Return the id, the status and the counts of the batch. If the status is `ended`, `ended` has every item."""
        with self._lock:
            return batch_head(self.batch.batch_id, self._statuses)

    def take_state(self, task_id: str, state: TaskState | None) -> None:
        index, status = self._indexes[task_id], state.status.value if state else GONE
        with self._lock:
            known = self._statuses[index]
            if known not in _OPEN or known == status:
                return
            self._statuses[index] = status
            if status not in _OPEN:
                self.ended.append(index)
        self.wake()


def batch_event_id(head: dict[str, Any]) -> str:
    """Return the id of the event that shows this state of a batch."""
    counts = head["counts"]
    return f"batch.{counts['queued']}.{counts['running']}"


class BatchItems:
    """Items of a batch in the order in which they end, for one stream."""

    def __init__(self, subject: BatchSubject, store: SubmissionStore, *, with_vectors: bool) -> None:
        self._subject = subject
        self._store = store
        self._with_vectors = with_vectors
        self._sent = 0

    @property
    def are_all_sent(self) -> bool:
        """Whether every item has ended and was returned."""
        return self._sent == len(self._subject.batch.entries)

    def new_items(self) -> Iterator[list[tuple[int, bytes]]]:
        """Yield index and JSON of the items that have ended since the last call, some at a time. Raises ServiceUnavailable."""
        while chunk := self._subject.ended[self._sent : self._sent + _CHUNK]:
            items = list(zip(chunk, self._texts(chunk), strict=True))
            self._sent += len(chunk)
            yield items

    def _texts(self, indexes: Sequence[int]) -> list[bytes]:
        entries = [self._subject.batch.entries[index] for index in indexes]
        task_ids = [entry for entry in entries if isinstance(entry, str)]
        records = dict(zip(task_ids, self._store.get_many(task_ids), strict=True))
        views = (
            item_view(entry, records.get(entry) if isinstance(entry, str) else None, with_vector=self._with_vectors)
            for entry in entries
        )
        return [encode({"index": index, **view}) for index, view in zip(indexes, views, strict=True)]


class BatchEvents:
    """Events of one stream of a batch."""

    def __init__(self, subject: BatchSubject, items: BatchItems) -> None:
        self._subject = subject
        self._items = items
        self._shown: dict[str, Any] = {}
        self.has_ended = False

    def new_events(self) -> Iterator[bytes]:
        """Yield new items, and the counts if they have changed; the last event alone says that the batch has ended."""
        head = self._subject.head()
        if not self._shown and head["status"] != _ENDED:
            yield self._head_event(head)
        while True:
            for items in self._items.new_items():
                yield from (event("item", f"item.{index}", text) for index, text in items)
            head = self._subject.head()
            if head["status"] != _ENDED or self._items.are_all_sent:  # else items have ended meanwhile
                break
        if head != self._shown:
            yield self._head_event(head)
        self.has_ended = head["status"] == _ENDED

    def _head_event(self, head: dict[str, Any]) -> bytes:
        self._shown = head
        return event("batch", batch_event_id(head), encode(head))
