"""Sweeper: ends tasks after their deadline, and queues tasks again if their worker or message was lost."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from inference.broker import HIGHEST_PRIORITY, USUAL_PRIORITY, Broker
from inference.domain import QueueMessage, TaskRecord
from inference.errors import InferenceError
from inference.lifecycle.dead_letters import move_to_dead_letters
from inference.lifecycle.task_log import ExpiryLog, log_tasks, record_context
from inference.metrics.relay import tasks_expired, tasks_redelivered
from inference.relay.tracing import add_dead_letter_span, add_expired_span
from inference.runtime.loop_watch import TURN_LIMIT_S, LoopWatch
from inference.storage.protocol import ObjectStore
from inference.task_store import MaintenanceStore, Order

if TYPE_CHECKING:
    from inference.tracing.tracer import Tracer

logger = logging.getLogger(__name__)

#: Maximum number of tasks in one step of a pass.
_LIMIT = 500
#: Expired tasks of a pass whose records are read for their traces: after an outage thousands may expire at once.
_MAX_TRACED = 2000
#: Above each acceptance number: every waiting task of an owner without a message has lost it.
_EACH = 2**53
#: Waiting tasks of a queue that one pass checks for lost messages; the next pass continues there.
_LOST_LIMIT, _LOST_LIMIT_WITH_OWNERS = 5000, 1000
#: Members of each set of a queue that one pass compares with the task records.
_GONE_LIMIT = 100


@dataclass(frozen=True)
class SweepPolicy:
    interval_s: float = 1.0
    max_attempts: int = 3
    requeue_lost_after_s: float = 5.0


class Sweeper:
    """Sweeps the given queues. Several instances may run: every step is atomic in the store.

    Args:
        tracer: None while traces are off.
    """

    turn_limit_s = TURN_LIMIT_S

    def __init__(
        self,
        store: MaintenanceStore,
        broker: Broker,
        objects: ObjectStore,
        *,
        holder: str,
        queues: Sequence[str],
        policy: SweepPolicy,
        tracer: Tracer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._broker = broker
        self._objects = objects
        self._holder = holder
        self._queues = queues
        self._policy = policy
        self._tracer = tracer
        self._clock = clock
        self.watch = LoopWatch()
        self._logged: set[str] = set()
        self._expired = ExpiryLog(clock)
        self._watermarks: dict[str, deque[tuple[float, dict[Order, int]]]] = {queue: deque() for queue in queues}

    def run(self, stopping: threading.Event) -> None:
        """Sweep until `stopping` is set; no error ends the loop."""
        while not stopping.wait(self._policy.interval_s):
            self.sweep_once()

    def sweep_once(self) -> None:
        """Run one pass. A step that fails does not stop the others; the next pass repeats it."""
        self._logged.clear()
        self._attempt(self._expire, "sweep")
        self._attempt(self._reap, "sweep")
        for queue in self._queues:
            self._attempt(partial(self._find_lost, queue), "sweep")
            self._attempt(partial(self._forget_gone, queue), "sweep")

    def _expire(self) -> None:
        expired: list[str] = []
        try:
            while len(step := self._store.expire_due(_LIMIT)) == _LIMIT:
                expired += step
            expired += step
        finally:  # tasks that expired before the store failed are logged too
            tasks_expired.inc(len(expired))
            self._expired.note_stored(self._store, expired)
            self._attempt(partial(self._trace_expired, expired), "the spans of expired tasks")

    def _trace_expired(self, task_ids: Sequence[str]) -> None:
        if self._tracer is None:
            return
        for start in range(0, min(len(task_ids), _MAX_TRACED), _LIMIT):
            for record in self._records(task_ids[start : start + _LIMIT]):
                if record.trace:
                    add_expired_span(self._tracer, record)

    def _reap(self) -> None:
        reaped = self._store.reap(self._holder, max_attempts=self._policy.max_attempts, limit=_LIMIT)
        if reaped.requeue:
            log_tasks(logger, "%d tasks are queued again: their worker was lost: %s", reaped.requeue)
            tasks_redelivered.labels("worker_lost").inc(len(reaped.requeue))
            self._publish(reaped.requeue)
        for record in self._records(reaped.exhausted):
            with record_context(record):
                logger.error("task %s becomes a dead letter after %d crashes", record.task_id, record.deaths)
                self._attempt(partial(self._give_up, record), f"the dead letter {record.task_id}")

    def _give_up(self, record: TaskRecord) -> None:
        is_moved = move_to_dead_letters(self._store, self._objects, self._holder, record)
        if is_moved and record.trace and self._tracer is not None:
            add_dead_letter_span(self._tracer, record)

    def _find_lost(self, queue: str) -> None:
        """Queue tasks again if their message is lost: later tasks started some time ago, or the queue of the broker is empty."""
        now, grace_s = self._clock(), self._policy.requeue_lost_after_s
        history = self._watermarks[queue]
        history.append((now, self._store.get_started_watermarks(queue)))
        while len(history) > 1 and history[1][0] <= now - grace_s:
            history.popleft()
        started = history[0][1] if history[0][0] <= now - grace_s else {}
        is_empty = self._broker.get_depth(queue) == 0
        up_to = None if is_empty else self._overtaken(queue, started)
        # With owners, many tasks that wait for their turn are older than the newest that has started.
        has_owners = up_to is not None and any(order.owner for order in up_to)
        limit = _LOST_LIMIT_WITH_OWNERS if has_owners else _LOST_LIMIT
        lost = self._store.find_lost(queue, up_to=up_to, grace_s=grace_s, limit=limit)
        if lost:
            log_tasks(logger, f"%d waiting tasks of {queue} lost their message and are queued again: %s", lost)
            tasks_redelivered.labels("message_lost").inc(len(lost))
            # On Redis a worker that was killed before the lease loses the message too. The note of `TakenMessages` counts such
            # workers, once the message is marked.
            self._publish(lost, is_redelivered=True)

    def _overtaken(self, queue: str, started: Mapping[Order, int]) -> dict[Order, int]:
        """Return up to which acceptance number tasks have been overtaken, by the highest numbers that started."""
        if not self._broker.has_turns:
            return _overtaken(_without_owners(started))
        present = self._broker.get_owners(queue)
        if "" in present:  # returned messages, which may be of any owner
            return _overtaken(started)
        absent = self._store.get_queue_load(queue).shares.keys() - present
        return _overtaken(dict(started) | {Order(USUAL_PRIORITY, owner): _EACH for owner in absent})

    def _forget_gone(self, queue: str) -> None:
        gone = self._store.forget_gone(queue, limit=_GONE_LIMIT)
        if gone:
            logger.warning("removed %d entries of %s: their tasks neither wait nor run", gone, queue)

    def _publish(self, task_ids: Sequence[str], *, is_redelivered: bool = False) -> None:
        for record in self._records(task_ids):
            message, owner = QueueMessage(record.model, (record.item,)), record.owner
            publish = partial(self._broker.publish, record.queue, message, record.priority, owner=owner)
            with record_context(record):
                self._attempt(partial(publish, is_redelivered=is_redelivered), f"the message of {record.task_id}")

    def _records(self, task_ids: Sequence[str]) -> list[TaskRecord]:
        return [record for record in self._store.get_many(task_ids) if record is not None]

    def _attempt(self, call: Callable[[], object], subject: str) -> None:
        """Make a call, and log its error, so that the following calls are made; a pass logs each outage once."""
        self.watch.turn()
        try:
            call()
        except InferenceError as error:
            message = f"{subject}: {error}"
            if message not in self._logged:
                self._logged.add(message)
                logger.warning("%s", message)
        except Exception:
            logger.exception("%s failed", subject)


def _overtaken(started: Mapping[Order, int]) -> dict[Order, int]:
    """Return up to which acceptance number tasks of each priority and owner have been overtaken.

    Only tasks of the same owner and of the same or a lower priority can overtake a task: a higher priority starts first anyway,
    and owners take turns.
    """
    highest: dict[Order, int] = {}
    for owner in {order.owner for order in started}:
        number = 0
        for priority in range(HIGHEST_PRIORITY + 1):
            order = Order(priority, owner)
            number = highest[order] = max(number, started.get(order, 0))
    return highest


def _without_owners(started: Mapping[Order, int]) -> dict[Order, int]:
    highest: dict[Order, int] = {}
    for order, number in started.items():
        common = Order(order.priority)
        highest[common] = max(number, highest.get(common, 0))
    return highest
