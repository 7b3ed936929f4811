"""One reply channel for each API process: results come as messages, and the records are read in case one got lost.

    router = ReplyRouter(client, store)
    waiter = router.expect(task_id)      # before the task is accepted
    ...
    record = waiter.wait(timeout_s)

Uses `threading` only, so that it works in threads and, where gevent has patched it, in greenlets.
"""

from __future__ import annotations

import logging
import struct
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any, Self

import redis

from inference.errors import ServiceUnavailable
from inference.messages import Outcome, decode_outcome
from inference.task_store.protocol import TaskStore

logger = logging.getLogger(__name__)

#: Seconds between two looks at the records of everyone who waits.
POLL_INTERVAL_S = 1.0

_HEAD = struct.Struct(">IQ")
_LENGTH = struct.Struct(">I")


def parse_frames(data: bytes) -> Iterator[tuple[str, int, bytes]]:
    """(task id, finished at in ms, outcome) of each result in one reply message; the commit script writes them."""
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


class Waiter:
    """One caller that waits for one task."""

    def __init__(self, router: ReplyRouter, task_id: str) -> None:
        self._router = router
        self._ready = threading.Event()
        self.task_id = task_id
        self.outcome: Outcome | None = None
        self.finished_at_ms = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._router.forget(self)

    def wait(self, timeout_s: float) -> Outcome | None:
        """The outcome, or None when the time is up."""
        self._ready.wait(timeout_s)
        return self.outcome

    def resolve(self, outcome: Outcome, finished_at_ms: int) -> None:
        self.outcome, self.finished_at_ms = outcome, finished_at_ms
        self._ready.set()


class ReplyRouter:
    """Hands each reply to those who wait for it."""

    def __init__(self, client: redis.Redis, store: TaskStore, key_prefix: str) -> None:
        self.channel = f"{key_prefix}:replies:{uuid.uuid4().hex}"
        self._redis = client
        self._store = store
        self._waiters: dict[str, set[Waiter]] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def expect(self, task_id: str) -> Waiter:
        """Start waiting for `task_id`; the waiter is a context manager that ends it."""
        waiter = Waiter(self, task_id)
        with self._lock:
            self._waiters.setdefault(task_id, set()).add(waiter)
            if self._thread is None:  # not in __init__: gunicorn forks after the app is made
                self._thread = threading.Thread(target=self._run, name="replies", daemon=True)
                self._thread.start()
        return waiter

    def forget(self, waiter: Waiter) -> None:
        with self._lock:
            waiters = self._waiters.get(waiter.task_id, set())
            waiters.discard(waiter)
            if not waiters:
                self._waiters.pop(waiter.task_id, None)

    def stop(self) -> None:
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except (redis.RedisError, OSError) as error:
                logger.warning("the reply channel broke (%s); subscribing again", error)
                self._stopping.wait(0.5)
            except Exception:
                logger.exception("the reply channel failed; subscribing again")
                self._stopping.wait(0.5)

    def _listen(self) -> None:
        with self._redis.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
            channel.subscribe(self.channel)
            self._poll_records()  # what came while nobody listened
            polled_at = time.monotonic()
            while not self._stopping.is_set():
                message: dict[str, Any] | None = channel.get_message(timeout=POLL_INTERVAL_S)
                if message is not None:
                    for task_id, finished_at_ms, outcome in parse_frames(message["data"]):
                        self._resolve(task_id, decode_outcome(outcome), finished_at_ms)
                if time.monotonic() - polled_at >= POLL_INTERVAL_S:
                    self._poll_records()
                    polled_at = time.monotonic()

    def _poll_records(self) -> None:
        with self._lock:
            task_ids = list(self._waiters)
        if not task_ids:
            return
        try:
            records = self._store.get_many(task_ids)
        except ServiceUnavailable as error:
            logger.warning("cannot read the records of %d waiting callers: %s", len(task_ids), error)
            return
        for record in records:
            if record is not None and record.outcome is not None:
                self._resolve(record.task_id, record.outcome, record.finished_at_ms)

    def _resolve(self, task_id: str, outcome: Outcome, finished_at_ms: int) -> None:
        with self._lock:
            waiters = list(self._waiters.get(task_id, ()))
        for waiter in waiters:
            waiter.resolve(outcome, finished_at_ms)
