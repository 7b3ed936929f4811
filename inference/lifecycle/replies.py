"""Reply channel of an API process: results arrive as messages, and the records are polled in case a message is lost.

    router = ReplyRouter(client, store)
    waiter = router.expect(task_id)      # before the task is accepted
    ...
    record = waiter.wait(timeout_s)

Uses `threading` only, so that it works in threads and, if gevent has patched it, in greenlets.
"""

from __future__ import annotations

import logging
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self

import redis

from inference.domain import Completion, Outcome, TaskRecord, TaskStatus, decode_outcome
from inference.errors import ServiceUnavailable, TaskNotFound
from inference.task_store.stores import TaskReader

logger = logging.getLogger(__name__)

#: Interval between two polls of the records of all waiting tasks, seconds.
POLL_INTERVAL_S = 1.0

_HEAD = struct.Struct(">IQ")
_LENGTH = struct.Struct(">I")


def parse_frames(data: bytes) -> Iterator[tuple[str, int, bytes]]:
    """Yield (task id, finished at in ms, outcome) of each result in a reply message, which the commit script writes."""
    at = 0
    while at < len(data):
        id_length, finished_at_ms = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        task_id = data[at : at + id_length].decode()
        at += id_length
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        yield task_id, finished_at_ms, data[at : at + length]
        at += length


class BatchWaiter:
    """One caller that waits for many tasks.

    Attributes:
        on_end: called in the thread of the replies, each time that a task has ended.
    """

    def __init__(self, router: ReplyRouter, task_ids: Sequence[str]) -> None:
        self._router = router
        self._all_ended = threading.Event()
        self.on_end: Callable[[], None] | None = None
        self.task_ids = tuple(task_ids)
        #: by task id, the ends that have arrived so far
        self.ended: dict[str, Completion] = {}
        if not self.task_ids:
            self._all_ended.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_for_all(self, timeout_s: float) -> bool:
        """Wait until all tasks have ended; False after the timeout."""
        return self._all_ended.wait(timeout_s)

    def take_ends(self, records: Iterable[TaskRecord | None]) -> None:
        """Take the ends that the records of `task_ids` already contain; a missing record means that the task has ended."""
        for task_id, record in zip(self.task_ids, records, strict=True):
            if record is None:
                self.resolve(task_id, Completion(_gone(task_id), 0))
            elif record.outcome is not None:
                self.resolve(task_id, Completion(record.outcome, record.finished_at_ms))

    def resolve(self, task_id: str, ended: Completion) -> None:
        self.ended[task_id] = ended
        if len(self.ended) == len(self.task_ids):
            self._all_ended.set()
        if self.on_end is not None:
            self.on_end()

    def close(self) -> None:
        """Stop waiting; further calls do nothing."""
        self._router.forget(self)


class Waiter(BatchWaiter):
    """One caller that waits for one task."""

    def __init__(self, router: ReplyRouter, task_id: str) -> None:
        super().__init__(router, [task_id])
        self.task_id = task_id

    @property
    def finished_at_ms(self) -> int:
        """End of the task, ms since the epoch; 0 until it has ended."""
        return self.ended[self.task_id].finished_at_ms if self.ended else 0

    def wait(self, timeout_s: float) -> Outcome | None:
        """Wait for the outcome; None after the timeout."""
        return self.ended[self.task_id].outcome if self.wait_for_all(timeout_s) else None


def _gone(task_id: str) -> Outcome:
    return Outcome.of_error(TaskStatus.FAILED, TaskNotFound("the task ended too long ago", task_id=task_id))


class ReplyRouter:
    """Passes each reply to the waiters of its task."""

    def __init__(self, client: redis.Redis, store: TaskReader, key_prefix: str) -> None:
        self.channel = f"{key_prefix}:replies:{uuid.uuid4().hex}"
        self._redis = client
        self._store = store
        self._waiters: dict[str, set[BatchWaiter]] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def expect(self, task_id: str) -> Waiter:
        """Start waiting for `task_id`; the waiter is a context manager that stops waiting at its end."""
        waiter = Waiter(self, task_id)
        self._add(waiter)
        return waiter

    def expect_all(self, task_ids: Sequence[str]) -> BatchWaiter:
        """Start waiting for many tasks, as `expect` does for one."""
        waiter = BatchWaiter(self, task_ids)
        self._add(waiter)
        return waiter

    def _add(self, waiter: BatchWaiter) -> None:
        with self._lock:
            for task_id in waiter.task_ids:
                self._waiters.setdefault(task_id, set()).add(waiter)
            if self._thread is None:  # not in __init__: gunicorn forks after the app is created
                self._thread = threading.Thread(target=self._run, name="replies", daemon=True)
                self._thread.start()

    def forget(self, waiter: BatchWaiter) -> None:
        with self._lock:
            for task_id in waiter.task_ids:
                waiters = self._waiters.get(task_id, set())
                waiters.discard(waiter)
                if not waiters:
                    self._waiters.pop(task_id, None)

    def stop(self) -> None:
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except (redis.RedisError, OSError) as error:
                logger.warning("the connection of the reply channel failed (%s); subscribing again", error)
                self._stopping.wait(0.5)
            except Exception:
                logger.exception("the reply channel failed; subscribing again")
                self._stopping.wait(0.5)

    def _listen(self) -> None:
        with self._redis.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
            channel.subscribe(self.channel)
            self._poll_records()  # results that arrived before the subscription
            polled_at = time.monotonic()
            while not self._stopping.is_set():
                message: dict[str, Any] | None = channel.get_message(timeout=POLL_INTERVAL_S)
                if message is not None:
                    frames = parse_frames(message["data"])
                    self._resolve([(task_id, Completion(decode_outcome(outcome), at_ms)) for task_id, at_ms, outcome in frames])
                if time.monotonic() - polled_at >= POLL_INTERVAL_S:
                    self._poll_records()
                    polled_at = time.monotonic()

    def _poll_records(self) -> None:
        with self._lock:
            task_ids = list(self._waiters)
        if not task_ids:
            return
        try:
            tasks = self._store.get_completed(task_ids)
        except ServiceUnavailable as error:
            logger.warning("cannot read the records of %d waiting callers: %s", len(task_ids), error)
            return
        self._resolve([(task.task_id, task) for task in tasks if task is not None])

    def _resolve(self, ends: Sequence[tuple[str, Completion]]) -> None:
        """Resolve waiters. The ends are decoded before: an unreadable outcome must not remove the waiters of other tasks."""
        with self._lock:  # taken from the list: the records of these tasks need no more polls
            found = [(waiter, task_id, ended) for task_id, ended in ends for waiter in self._waiters.pop(task_id, ())]
        for waiter, task_id, ended in found:
            waiter.resolve(task_id, ended)
