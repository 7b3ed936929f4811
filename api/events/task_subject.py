"""Events of one task: its object, each time that its status has changed."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from api.events.encoding import encode, event
from api.events.streams import TaskWatcher
from api.views.task import task_views
from inference.domain import TaskRecord, TaskStatus
from inference.task_store import SubmissionStore, TaskState


class TaskSubject(TaskWatcher):
    """A task.

    Attributes:
        record: the record as it was read last; None: not read yet, or it has expired.
        is_stale: whether the record is to be read again.
    """

    def __init__(self, task_id: str) -> None:
        super().__init__(self.key_of(task_id), (task_id,))
        self.task_id = task_id
        self.record: TaskRecord | None = None
        self.is_stale = True
        self._texts: dict[tuple[str, bool], bytes] = {}

    @staticmethod
    def key_of(task_id: str) -> Hashable:
        """Return the key of the subject."""
        return "task", task_id

    @property
    def has_ended(self) -> bool:
        """Whether nothing will change any more."""
        return not self.is_stale and (self.record is None or self.record.status.is_terminal)

    def take_state(self, task_id: str, state: TaskState | None) -> None:  # noqa: ARG002 there is one task
        if self.has_ended:
            return
        record = self.record
        self.is_stale = record is None or state is None or (state.status, state.attempts) != (record.status, record.attempts)

    def take_record(self, record: TaskRecord | None) -> None:
        """Take the record; None if it has expired."""
        self.record = record
        self.is_stale = False
        self._texts = {}
        self.wake()

    def text(self, record: TaskRecord, store: SubmissionStore, root: str, *, with_vector: bool) -> bytes:
        """Return the task object as JSON, made once for all streams of clients with this root path."""
        text = self._texts.get((root, with_vector)) if record is self.record else None
        if text is None:
            (view,) = task_views([record], store, with_vectors=with_vector, root=root)
            text = encode(view)
            if record is self.record:
                self._texts[root, with_vector] = text
        return text


def task_event_id(status: TaskStatus | str, attempts: int) -> str:
    """Return the id of the event that shows a task in this state."""
    return f"{status}.{attempts}"


class TaskEvents:
    """Events of one stream of a task.

    Args:
        root: the path under which the client reaches the service.
    """

    def __init__(self, subject: TaskSubject, store: SubmissionStore, root: str, *, with_vector: bool) -> None:
        self._subject = subject
        self._store = store
        self._root = root
        self._with_vector = with_vector
        self._shown = ""
        self.has_ended = False

    def new_events(self) -> Iterator[bytes]:
        """Yield the task if its state is another than the one that was shown last."""
        has_ended, record = self._subject.has_ended, self._subject.record
        if record is not None:
            event_id = task_event_id(record.status, record.attempts)
            if event_id != self._shown:
                text = self._subject.text(record, self._store, self._root, with_vector=self._with_vector)
                yield event("task", event_id, text)
                self._shown = event_id
        self.has_ended = has_ended
