"""Messages that come again, which may have ended the worker that had them before.

From its lease on, a task's record counts what the death of its worker means (`losses`, `deaths`). Before that only the message
can be blamed, and only by a worker that ended over it: so each that comes again is taken alone, from a note in Redis until its
tasks are leased. One whose note stands for too many workers is not taken any more. Restarts, lost connections and what was
merely prefetched count for nothing.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inference.broker.taken import TakenMessages
from inference.errors import ServiceUnavailable
from inference.ids import is_task_id
from inference.lifecycle.dead_letters import move_to_dead_letters
from inference.storage.protocol import ObjectStore
from inference.task_store.protocol import LeaseState
from inference.task_store.stores import WorkerStore
from tasks.consumer.main_loop import MainLoop
from tasks.pipeline.jobs import Delivery
from tasks.worker.background_calls import BackgroundStoreCalls

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Taking:
    message_id: str
    #: of a message that may be handled
    handle: Callable[[], None]
    #: of one that may not, with how many workers it ended
    refuse: Callable[[int], None]
    is_submitted: bool = False


class Redeliveries:
    """Takes messages that came again, one at a time. Its methods are called on the main loop.

    Args:
        max_deaths: workers that may end over a message until it is refused.
    """

    def __init__(
        self, taken: TakenMessages, store_calls: BackgroundStoreCalls, main_loop: MainLoop, *, owner: str, max_deaths: int
    ) -> None:
        self._taken = taken
        self._store_calls = store_calls
        self._main_loop = main_loop
        self._owner = owner
        self._max_deaths = max_deaths
        self._waiting: deque[_Taking] = deque()
        self._current: _Taking | None = None
        #: the current one, while Celery's handler runs
        self._handled: _Taking | None = None

    def take(self, message_id: str, *, handle: Callable[[], None], refuse: Callable[[int], None]) -> None:
        """Call `handle`, or `refuse` with how many workers the message ended, once those before it are taken."""
        self._waiting.append(_Taking(message_id, handle, refuse))
        if self._current is None:
            self._take_next()

    def watch(self, delivery: Delivery) -> None:
        """The message that is handled now, if it came again, is taken once `delivery` is leased."""
        taking, self._handled = self._handled, None
        if taking is not None:
            taking.is_submitted = True
            delivery.on_leased = lambda: self._main_loop.call(lambda: self._was_taken(taking))

    def forget_waiting(self) -> None:
        """Drop those of a connection that was lost: they come once more."""
        self._waiting.clear()

    def _take_next(self) -> None:
        if self._waiting:
            self._current = taking = self._waiting.popleft()
            self._store_calls.do(lambda: self._note(taking))

    def _note(self, taking: _Taking) -> None:
        """On the thread of the store_calls."""
        deaths = 0
        try:
            deaths = self._taken.take(taking.message_id, self._owner)
        except ServiceUnavailable:
            raise  # tried again
        except Exception:  # the messages behind it wait for this one
            logger.exception("it is not known how many workers ended over the message %s", taking.message_id)
        self._main_loop.call(lambda: self._go_on(taking, deaths))

    def _go_on(self, taking: _Taking, deaths: int) -> None:
        if deaths >= self._max_deaths:
            # The note stays: should this worker end before the message is gone, it is refused once more.
            taking.refuse(deaths)
            self._end(taking)
            return
        self._handled = taking
        try:
            taking.handle()
        finally:
            self._handled = None
            if not taking.is_submitted:
                self._was_taken(taking)

    def _was_taken(self, taking: _Taking) -> None:
        self._store_calls.do(lambda: self._taken.forget(taking.message_id))
        self._end(taking)

    def _end(self, taking: _Taking) -> None:
        if taking is self._current:
            self._current = None
            self._take_next()


class TaskBurial:
    """Ends the tasks of a message that is not taken any more as dead letters, their input kept."""

    def __init__(self, store: WorkerStore, objects: ObjectStore, owner: str) -> None:
        self._store = store
        self._objects = objects
        self._owner = owner

    def move_to_dead_letters(self, task_ids: Sequence[str], reason: str) -> bool:
        """Whether each of them has a record, which says how it ended or goes on elsewhere. Raises ServiceUnavailable."""
        states = [lease.state for lease in self._store.lease(self._owner, task_ids).leases] if task_ids else []
        leased = [task_id for task_id, state in zip(task_ids, states, strict=True) if state is LeaseState.LEASED]
        for record in self._store.get_many(leased):
            if record is not None:
                logger.error("task %s is a dead letter: %s", record.task_id, reason)
                move_to_dead_letters(self._store, self._objects, self._owner, record, reason)
        return bool(states) and LeaseState.UNKNOWN not in states


def id_of_redelivered(message: Any) -> str | None:
    """The id of a message that was delivered before; None for all others."""
    message_id = message.headers.get("id") if isinstance(message.headers, Mapping) else None
    is_again = bool((message.delivery_info or {}).get("redelivered"))
    return message_id if is_again and isinstance(message_id, str) else None


def task_ids_of(message: Any) -> list[str]:
    """The ids of its tasks; none where it cannot be read."""
    message_id = message.headers.get("id")
    try:
        items = json.loads(message.body)[1]["items"]
        defaults = [message_id] if len(items) == 1 else [f"{message_id}.{number}" for number in range(len(items))]
        ids = [item.get("task_id") or default for item, default in zip(items, defaults, strict=True)]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError):
        return []
    return ids if all(isinstance(one, str) and is_task_id(one) for one in ids) else []
