"""Messages that are delivered again, since they may have ended the worker that had them before.

Once a task is leased, its record counts the deaths of its workers (`losses`, `deaths`). Before the lease only the message can be
the cause of a death. Therefore messages that are delivered again are taken one at a time: a note in Redis says that a worker
takes the message, and it is deleted when the tasks are leased. If too many workers have ended with the note of a message in
place, the message is refused. Restarts, lost connections and messages that were only prefetched are not counted.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inference.broker.unacknowledged import TakenMessages
from inference.errors import ServiceUnavailable
from inference.ids import is_task_id
from inference.lifecycle.dead_letters import move_to_dead_letters
from inference.lifecycle.task_log import record_context
from inference.storage.protocol import ObjectStore
from inference.task_store.protocol import LeaseState
from inference.task_store.stores import WorkerStore
from tasks.consumer.main_loop import MainLoop
from tasks.pipeline.jobs import Delivery
from tasks.worker.background_calls import BackgroundStoreCalls

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Redelivery:
    message_id: str
    #: called if the message may be handled
    handle: Callable[[], None]
    #: called if it may not, with the number of workers that it ended
    refuse: Callable[[int], None]
    is_submitted: bool = False


class Redeliveries:
    """Takes messages that are delivered again, one at a time. The methods are called on the main loop.

    Args:
        max_deaths: number of workers that a message may end before it is refused.
    """

    def __init__(
        self, taken: TakenMessages, store_calls: BackgroundStoreCalls, main_loop: MainLoop, *, holder: str, max_deaths: int
    ) -> None:
        self._taken = taken
        self._store_calls = store_calls
        self._main_loop = main_loop
        self._holder = holder
        self._max_deaths = max_deaths
        self._waiting: deque[_Redelivery] = deque()
        self._current: _Redelivery | None = None
        #: the current message, while Celery's handler runs
        self._handled: _Redelivery | None = None

    def take(self, message_id: str, *, handle: Callable[[], None], refuse: Callable[[int], None]) -> None:
        """Call `handle`, or `refuse` with the number of workers that the message ended, after the messages before it."""
        self._waiting.append(_Redelivery(message_id, handle, refuse))
        if self._current is None:
            self._take_next()

    def watch(self, delivery: Delivery) -> None:
        """Note that the message that is handled now, if it was delivered again, is taken once `delivery` is leased."""
        redelivery, self._handled = self._handled, None
        if redelivery is not None:
            redelivery.is_submitted = True
            delivery.on_leased = lambda: self._main_loop.call(lambda: self._finish(redelivery))

    def forget_waiting(self) -> None:
        """Drop the waiting messages of a connection that was lost: they are delivered once more."""
        self._waiting.clear()

    def _take_next(self) -> None:
        if self._waiting:
            self._current = redelivery = self._waiting.popleft()
            self._store_calls.submit(lambda: self._note(redelivery))

    def _note(self, redelivery: _Redelivery) -> None:
        """Write the note in Redis, on the thread of the store calls."""
        deaths = 0
        try:
            deaths = self._taken.take(redelivery.message_id, self._holder)
        except ServiceUnavailable:
            raise  # tried again
        except Exception:  # go on: the other messages wait for this one
            logger.exception("it is not known how many workers the message %s has ended; it is taken", redelivery.message_id)
        self._main_loop.call(lambda: self._handle_or_refuse(redelivery, deaths))

    def _handle_or_refuse(self, redelivery: _Redelivery, deaths: int) -> None:
        if deaths >= self._max_deaths:
            # The note stays: if this worker ends before the message is gone, the message is refused once more.
            redelivery.refuse(deaths)
            self._end(redelivery)
            return
        self._handled = redelivery
        try:
            redelivery.handle()
        finally:
            self._handled = None
            if not redelivery.is_submitted:
                self._finish(redelivery)

    def _finish(self, redelivery: _Redelivery) -> None:
        self._store_calls.submit(lambda: self._taken.forget(redelivery.message_id))
        self._end(redelivery)

    def _end(self, redelivery: _Redelivery) -> None:
        if redelivery is self._current:
            self._current = None
            self._take_next()


class MessageDeadLetters:
    """Makes the tasks of a message that is refused dead letters, and keeps their input."""

    def __init__(self, store: WorkerStore, objects: ObjectStore, holder: str) -> None:
        self._store = store
        self._objects = objects
        self._holder = holder

    def move_to_dead_letters(self, task_ids: Sequence[str], reason: str) -> bool:
        """Make tasks dead letters; return whether all of them have a record, so that the message is no longer needed.

        Tasks that have ended, or that another worker has, stay as they are. Raises ServiceUnavailable.
        """
        states = [lease.state for lease in self._store.lease(self._holder, task_ids).leases] if task_ids else []
        leased = [task_id for task_id, state in zip(task_ids, states, strict=True) if state is LeaseState.LEASED]
        for record in self._store.get_many(leased):
            if record is not None:
                with record_context(record):
                    logger.error("task %s is a dead letter: %s", record.task_id, reason)
                    move_to_dead_letters(self._store, self._objects, self._holder, record, reason)
        return bool(states) and LeaseState.UNKNOWN not in states


def id_of_redelivered(message: Any) -> str | None:
    """Return the id of a message that was delivered before; None for all others."""
    message_id = message.headers.get("id") if isinstance(message.headers, Mapping) else None
    is_redelivered = bool((message.delivery_info or {}).get("redelivered"))
    return message_id if is_redelivered and isinstance(message_id, str) else None


def task_ids_of(message: Any) -> list[str]:
    """Return the ids of the message's tasks; none if it cannot be read."""
    message_id = message.headers.get("id")
    try:
        items = json.loads(message.body)[1]["items"]
        defaults = [message_id] if len(items) == 1 else [f"{message_id}.{number}" for number in range(len(items))]
        ids = [item.get("task_id") or default for item, default in zip(items, defaults, strict=True)]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError):
        return []
    return ids if all(isinstance(one, str) and is_task_id(one) for one in ids) else []
