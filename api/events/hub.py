"""All event streams of a process, with one reader of the task store for all of them.

scripts ──publish──▶ TaskChanges ──ids──▶ EventHub ──states, records──▶ subjects ──wake──▶ streams
                                             └──────────▶ ListUpdates ──▶ lists ──▶ streams

The reader runs while there are streams. It reads changes of 250 ms together, and only of tasks that a stream shows. Messages may
be lost while the connection breaks, so all tasks are read again after each subscription, and some of them in turn at any time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

import redis

from api.events.list_subject import ListSubject
from api.events.list_updates import INTERVAL_S, RECORDS_CHUNK, STATES_CHUNK, ListUpdates
from api.events.streams import EventStream, Subject, TaskWatcher
from api.events.task_subject import TaskSubject
from api.server.shutdown_flag import SharedFlag
from inference.errors import RateLimited, ServiceUnavailable
from inference.lifecycle.replies import BatchWaiter
from inference.lifecycle.task_changes import ChangeSubscription, TaskChanges
from inference.metrics.api import event_streams
from inference.runtime.chunks import chunks
from inference.task_store import SubmissionStore

logger = logging.getLogger(__name__)

#: Seconds that a reading waits for changes, so that a stopping process ends its streams in time.
_READ_TIMEOUT_S = 0.5
#: Seconds between two checks of some tasks, and the number of these: their messages may have been lost.
_CHECK_INTERVAL_S = 2.0
_CHECKED_TASKS = 500
#: Seconds after which the reader subscribes again after an error, and for which a new stream waits for that.
_REPEAT_INTERVAL_S = 0.5
_SUBSCRIBE_TIMEOUT_S = 3.0
_RETRY_AFTER_S = 5.0
#: Largest share of the streams that one owner may have.
_OWNER_SHARE = 0.5

S = TypeVar("S", bound=Subject)


class EventHub:
    """Streams of a process, and the subjects that they show.

    Args:
        stopping: set before the service ends.
        max_streams: limit for open streams.
    """

    def __init__(self, store: SubmissionStore, changes: TaskChanges, stopping: SharedFlag, max_streams: int) -> None:
        self._store = store
        self._changes = changes
        self._stopping = stopping
        self._max_streams = max_streams
        self._lock = threading.Lock()
        self._streams: dict[EventStream, Subject] = {}
        self._reply_streams: set[EventStream] = set()
        self._subjects: dict[Hashable, Subject] = {}
        self._watchers: dict[str, set[TaskWatcher]] = defaultdict(set)
        #: held while states and records are read, so that an older reading never follows a newer one
        self._reading = threading.Lock()
        self._lists = ListUpdates(store)
        self._unchecked: list[str] = []
        self._check_at_s = 0.0
        self._subscribed = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self, make: Callable[[], S], key: Hashable, *, owner: str, ends_on_drain: bool = True) -> tuple[EventStream, S]:
        """Open a stream; close it in any case. Read the state that it shows after this call, so that no change is missed.

        Args:
            make: makes the subject if no stream shows it yet.
            key: the subject's key.
            owner: of the client's key; empty without keys.
            ends_on_drain: whether the stream ends when the API is about to end.

        Raises:
            ServiceUnavailable: there are too many streams, or the task store does not answer.
            RateLimited: the owner has too many.
        """
        self.check_room(owner)
        stream = EventStream(self._leave, owner=owner, ends_on_drain=ends_on_drain)
        with self._lock:
            subject = self._subjects.get(key) or self._add(make())
            subject.streams.add(stream)
            self._streams[stream] = subject
            self._show_count()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="events", daemon=True)
                self._thread.start()
        if ends_on_drain and self._stopping.is_set:
            stream.end()
        if not self._subscribed.wait(_SUBSCRIBE_TIMEOUT_S):
            stream.close()
            raise ServiceUnavailable("the task store does not answer", retry_after_s=1)
        return stream, subject  # type: ignore[return-value] # a key belongs to one class

    def open_for(self, waiter: BatchWaiter, owner: str) -> EventStream:
        """Open a stream that replies wake, without the reader; `waiter` is closed with it. It does not end on drain.

        Raises:
            ServiceUnavailable: there are too many streams.
            RateLimited: the owner has too many.
        """

        def leave(stream: EventStream) -> None:
            self._reply_streams.discard(stream)
            self._show_count()
            waiter.close()

        self.check_room(owner)
        stream = EventStream(leave, owner=owner, ends_on_drain=False)
        self._reply_streams.add(stream)
        self._show_count()
        waiter.on_end = stream.wake
        return stream

    def check_room(self, owner: str) -> None:
        """Check that there is room for another stream. Raises ServiceUnavailable, RateLimited."""
        with self._lock:
            owners = [stream.owner for stream in (*self._streams, *self._reply_streams)]
        if owner and (own := owners.count(owner)) >= self._max_streams * _OWNER_SHARE:
            raise RateLimited(
                f"{own} event streams of this owner are open",
                expected=f"at most half of the event streams that a process takes (api.max_event_streams: {self._max_streams})",
                retry_after_s=_RETRY_AFTER_S,
            )
        if len(owners) >= self._max_streams:
            raise ServiceUnavailable(
                f"this process has as many event streams as it takes: {self._max_streams} (api.max_event_streams)",
                retry_after_s=_RETRY_AFTER_S,
            )

    def _show_count(self) -> None:
        event_streams.set(len(self._streams) + len(self._reply_streams))

    def load(self, subject: TaskWatcher) -> None:
        """Read the state of the subject's tasks now. Raises ServiceUnavailable."""
        self._refresh(subject.task_ids)

    def _add(self, subject: Subject) -> Subject:
        self._subjects[subject.key] = subject
        if isinstance(subject, TaskWatcher):
            for task_id in subject.task_ids:
                self._watchers[task_id].add(subject)
        return subject

    def _leave(self, stream: EventStream) -> None:
        with self._lock:
            subject = self._streams.pop(stream, None)
            if subject is None:
                return
            self._show_count()
            subject.streams.discard(stream)
            if subject.streams:
                return
            del self._subjects[subject.key]
            if isinstance(subject, TaskWatcher):
                for task_id in subject.task_ids:
                    self._watchers[task_id].discard(subject)
                    if not self._watchers[task_id]:
                        del self._watchers[task_id]

    def _run(self) -> None:
        while self._has_streams():
            try:
                self._listen()
            except (redis.RedisError, OSError, ServiceUnavailable) as error:
                logger.warning("the reader of event streams failed (%s); subscribing again", error)
                time.sleep(_REPEAT_INTERVAL_S)
            except Exception:
                logger.exception("the reader of event streams failed; subscribing again")
                time.sleep(_REPEAT_INTERVAL_S)
            finally:
                self._subscribed.clear()

    def _has_streams(self) -> bool:
        """Whether the reader is needed; if not, the next stream starts another one."""
        with self._lock:
            if not self._streams:
                self._thread = None
                self._subscribed.clear()
            return bool(self._streams)

    def _listen(self) -> None:
        with self._changes.subscribe() as subscription:
            self._read_all_again()
            self._subscribed.set()
            while self._is_used():
                self._read(subscription)

    def _is_used(self) -> bool:
        with self._lock:
            if not self._streams:
                self._subscribed.clear()
            return bool(self._streams)

    def _read(self, subscription: ChangeSubscription) -> None:
        """Pass on the changes since the last call, then let more changes come together."""
        task_ids = subscription.read(_READ_TIMEOUT_S)
        self._end_on_drain()
        self._refresh(task_id for task_id in dict.fromkeys(task_ids) if task_id in self._watchers)
        if lists := self._all_lists():
            self._lists.add(task_ids)
            self._lists.publish_if_due(lists)
        else:
            self._lists.clear()
        self._check_some()
        if task_ids:
            time.sleep(INTERVAL_S)

    def _end_on_drain(self) -> None:
        if self._stopping.is_set:
            for stream in tuple(self._streams):
                if stream.ends_on_drain and not stream.is_closed:
                    stream.end()

    def _all_lists(self) -> list[ListSubject]:
        with self._lock:
            return [subject for subject in self._subjects.values() if isinstance(subject, ListSubject)]

    def _read_all_again(self) -> None:
        with self._lock:
            task_ids = list(self._watchers)
        self._refresh(task_ids)
        self._lists.clear()
        for subject in self._all_lists():
            subject.note_gap()

    def _check_some(self) -> None:
        """Check the keys of all streams, and read the states of some tasks, others with each call."""
        now_s = time.monotonic()
        if now_s < self._check_at_s:
            return
        self._check_at_s = now_s + _CHECK_INTERVAL_S
        for stream in tuple(self._streams):
            stream.end_if_revoked()
        if not self._unchecked:
            with self._lock:
                self._unchecked = list(self._watchers)
        some, self._unchecked = self._unchecked[:_CHECKED_TASKS], self._unchecked[_CHECKED_TASKS:]
        self._refresh(some)

    def _refresh(self, task_ids: Iterable[str]) -> None:
        """Read states, then the records of those tasks whose state has changed. Raises ServiceUnavailable."""
        for part in chunks(task_ids, STATES_CHUNK):
            with self._reading:
                changed = self._take_states(part)
                for few in chunks(changed, RECORDS_CHUNK):
                    for task_id, record in zip(few, self._store.get_many(few), strict=True):
                        for subject in changed[task_id]:
                            subject.take_record(record)

    def _take_states(self, task_ids: Sequence[str]) -> dict[str, list[TaskSubject]]:
        """Pass on the states of tasks; returns the subjects that need the record, by task."""
        changed: dict[str, list[TaskSubject]] = {}
        for task_id, state in zip(task_ids, self._store.get_states(task_ids), strict=True):
            for subject in tuple(self._watchers.get(task_id, ())):
                subject.take_state(task_id, state)
                if isinstance(subject, TaskSubject) and subject.is_stale:
                    changed.setdefault(task_id, []).append(subject)
        return changed
