"""Events of a list of tasks: its newest page, then the tasks that were accepted or have changed since the last event."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from api.events.encoding import encode, event
from api.events.streams import Subject
from api.views.task import task_views
from inference.domain import TaskRecord
from inference.task_store import SubmissionStore, TaskFilter, TaskState

#: Tasks of an event.
MAX_TASKS = 100
#: Seconds for which streams that are opened share a page.
_PAGE_LIFE_S = 1.0
#: Updates that a slow stream may miss without loss.
_KEPT_UPDATES = 4
#: Tasks that an event has shown and that are shown once more when they no longer match.
_MAX_NOTED = 1000


#: A task's time of acceptance and id, by which lists are sorted, and its JSON.
Text = tuple[tuple[int, str], bytes]


class TaskTexts:
    """JSON of tasks by the path under which clients reach the service, made once for all lists and streams."""

    def __init__(self, records: Mapping[str, TaskRecord], store: SubmissionStore) -> None:
        self._records = records
        self._store = store
        self._texts: dict[str, dict[str, Text]] = {}

    def get(self, task_ids: Iterable[str], root: str) -> list[Text]:
        """Return the texts of those tasks that have a record, for clients with this root path."""
        texts = self._texts.setdefault(root, {})
        known = [task_id for task_id in task_ids if task_id in self._records]
        missing = [self._records[task_id] for task_id in known if task_id not in texts]
        for record, view in zip(missing, task_views(missing, self._store, with_vectors=False, root=root), strict=True):
            texts[record.task_id] = (record.created_at_ms, record.task_id), encode(view)
        return [texts[task_id] for task_id in known]


@dataclass(frozen=True)
class ListUpdate:
    """Tasks of a list that have changed."""

    #: number of changed tasks, those included that are not shown
    count: int
    #: the same of this update and all before it
    total: int
    #: last change first
    task_ids: tuple[str, ...]
    texts: TaskTexts
    #: by root path, the event for streams that have shown the update before
    events: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class _Page:
    root: str
    loaded_at_s: float
    #: `ListSubject.total` and `gaps` when it was read
    total: int
    gaps: int
    event: bytes


class ListSubject(Subject):
    """Tasks that match a filter.

    Attributes:
        total: number of changed tasks in all updates.
        gaps: how many times changes may have been missed, so that streams have to show the newest page again.
        updates: the last updates.
    """

    def __init__(self, wanted: TaskFilter, store: SubmissionStore) -> None:
        super().__init__(self.key_of(wanted))
        self.wanted = wanted
        self.total = 0
        self.gaps = 0
        self.updates: deque[ListUpdate] = deque(maxlen=_KEPT_UPDATES)
        self._store = store
        self._noted: dict[str, None] = {}
        self._page: _Page | None = None
        self._lock = threading.Lock()

    @staticmethod
    def key_of(wanted: TaskFilter) -> Hashable:
        """Return the key of the subject."""
        return "list", wanted

    def matches(self, task_id: str, state: TaskState) -> bool:
        """Whether an event is to show this task, since it matches, or did so when an event showed it."""
        if self.wanted.matches(state):
            self._note(task_id)
            return True
        was_shown = task_id in self._noted
        self._noted.pop(task_id, None)
        return was_shown

    def take(self, task_ids: Sequence[str], omitted: int, texts: TaskTexts) -> None:
        """Add an update, of which `omitted` tasks are not shown."""
        count = len(task_ids) + omitted
        self.total += count
        self.updates.append(ListUpdate(count, self.total, tuple(task_ids), texts))
        self.wake()

    def note_gap(self) -> None:
        """Let every stream show the newest page again."""
        self.gaps += 1
        self.wake()

    def page(self, root: str) -> _Page:
        """Return the newest page, shared by streams that are opened together. Raises ServiceUnavailable."""
        with self._lock:
            page = self._page
            if (
                page is None
                or (page.root, page.gaps) != (root, self.gaps)
                or time.monotonic() - page.loaded_at_s > _PAGE_LIFE_S
                or self.total - page.total > MAX_TASKS
            ):
                page = self._page = self._load(root)
            return page

    def _load(self, root: str) -> _Page:
        loaded_at_s, total, gaps = time.monotonic(), self.total, self.gaps
        task_ids = self._store.list_tasks(self.wanted, limit=MAX_TASKS).task_ids
        records = {record.task_id: record for record in self._store.get_many(task_ids) if record is not None}
        for task_id in records:
            self._note(task_id)
        data = tasks_data(TaskTexts(records, self._store).get(task_ids, root), omitted=0)
        return _Page(root, loaded_at_s, total, gaps, event("tasks", f"page.{total}", data))

    def _note(self, task_id: str) -> None:
        if self.wanted.statuses:
            self._noted[task_id] = None
        if len(self._noted) > _MAX_NOTED:
            del self._noted[next(iter(self._noted))]


def tasks_data(texts: Iterable[Text], *, omitted: int) -> bytes:
    """Return the data of an event `tasks`, newest first."""
    newest_first = (text for _, text in sorted(texts, reverse=True))
    count = b',"omitted":%d' % omitted if omitted else b""
    return b'{"tasks":[%s]%s}' % (b",".join(newest_first), count)


class ListEvents:
    """Events of one stream of a list.

    Args:
        root: the path under which the client reaches the service.
    """

    has_ended = False

    def __init__(self, subject: ListSubject, root: str) -> None:
        self._subject = subject
        self._root = root
        self._gaps = -1
        self._total = 0

    def new_events(self) -> Iterator[bytes]:
        """Yield the newest page first and after a gap, else one event with all changes since the last one."""
        if self._gaps != self._subject.gaps:
            page = self._subject.page(self._root)
            self._gaps, self._total = page.gaps, page.total
            yield page.event
        updates = [update for update in tuple(self._subject.updates) if update.total > self._total]
        if updates:
            text = self._shared(updates[-1]) if self._total + updates[-1].count == updates[-1].total else self._joined(updates)
            self._total = updates[-1].total
            yield text

    def _shared(self, update: ListUpdate) -> bytes:
        if self._root not in update.events:
            update.events[self._root] = self._event([update], omitted=update.count - len(update.task_ids))
        return update.events[self._root]

    def _joined(self, updates: Sequence[ListUpdate]) -> bytes:
        """The event for a stream that has missed updates; updates that are no longer kept are among the omitted tasks."""
        different = {task_id for update in updates for task_id in update.task_ids}
        repeated = sum(len(update.task_ids) for update in updates) - len(different)
        return self._event(updates, omitted=updates[-1].total - self._total - repeated - min(len(different), MAX_TASKS))

    def _event(self, updates: Sequence[ListUpdate], *, omitted: int) -> bytes:
        shown: dict[str, Text] = {}
        for update in reversed(updates):
            task_ids = [task_id for task_id in update.task_ids if task_id not in shown][: MAX_TASKS - len(shown)]
            shown |= zip(task_ids, update.texts.get(task_ids, self._root), strict=True)
        return event("tasks", f"tasks.{updates[-1].total}", tasks_data(shown.values(), omitted=omitted))
