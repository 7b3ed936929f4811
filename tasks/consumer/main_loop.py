"""Calls from the pipeline's threads back to Celery's main loop, in order."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from vine import promise

from inference.runtime.health import OK
from inference.runtime.loop_watch import LoopWatch

logger = logging.getLogger(__name__)

#: Seconds that an event waits for others: publishing a message costs more than the events in it.
_EVENTS_INTERVAL_S = 0.1
#: Limit for events that wait for a connection; the oldest are dropped.
_MAX_EVENTS = 10_000
#: Limit for one message. Celery's own limit of 24 is reached after eight requests.
_EVENTS_A_MESSAGE = 1_000
#: Interval between two notes that the loop turns, seconds.
_TURN_INTERVAL_S = 1.0


class MainLoop:
    """Runs calls on the main loop in their order, and publishes events, many at a time.

    `Hub.call_soon` keeps a set, which has no order; therefore one callback empties a deque. Celery's dispatcher loses its events
    when its connection is lost; therefore events wait here, and go to the dispatcher of the next connection.
    """

    def __init__(self) -> None:
        self._consumer: Any = None
        self._calls: deque[Callable[[], None]] = deque()
        self._promise = promise(self.run_pending)
        self._events: deque[tuple[str, dict[str, Any]]] = deque(maxlen=_MAX_EVENTS)
        self._will_publish = False
        self.watch = LoopWatch()

    def begin(self, consumer: Any) -> None:
        """Watch the loop from its first turn on; before that it still waits for the broker. Called on the main loop."""
        consumer.hub.call_repeatedly(_TURN_INTERVAL_S, partial(self.watch.begin, "the main loop"))

    def end(self) -> None:
        """End the watch: the main loop waits for the broker, or for the running batches of a worker that stops. Called on it."""
        self.watch.end()

    def consumption(self) -> str:
        """Return `OK`, or why no message is taken from the queues. May be called on any thread."""
        consumer = self._consumer
        if consumer is None or not self.watch.is_watching:
            return "no connection to the broker"
        tasks = consumer.task_consumer
        if tasks is None or not tasks.queues:
            return "no queue is consumed: add_consumer starts that again"
        return OK

    def attach(self, consumer: Any) -> None:
        """Use the loop of this consumer; called at the start and after each reconnect."""
        self._consumer = consumer
        self._publish_soon()  # Celery clears its timers with a connection that it lost

    def call(self, function: Callable[[], None]) -> None:
        """Run `function` on the main loop. May be called on any thread."""
        self._calls.append(function)
        if self._consumer is not None:
            self._consumer.hub.call_soon(self._promise)

    def run_pending(self) -> None:
        """Run the waiting calls. Called on the main loop, or after it has ended."""
        while self._calls:
            try:
                self._calls.popleft()()
            except Exception:
                # An error for one message must not stop the other messages; its task has ended in the record already.
                logger.exception("the bookkeeping of a message failed")

    def send_event(self, kind: str, **fields: Any) -> None:
        """Publish an event, `task-started` for example, within `_EVENTS_INTERVAL_S`. Called on the main loop."""
        self._events.append((kind, {"timestamp": time.time(), **fields}))
        if not self._will_publish:
            self._publish_soon()

    def publish_events(self) -> None:
        """Publish the waiting events. Called on the main loop, or after it has ended."""
        self._will_publish = False
        dispatcher = self._consumer and self._consumer.event_dispatcher
        if not dispatcher:
            return  # the next connection publishes them
        dispatcher.buffer_limit = _EVENTS_A_MESSAGE
        while self._events:
            kind, fields = self._events.popleft()
            dispatcher.send(kind, **fields)  # does nothing if events are disabled
        dispatcher.flush()

    def _publish_soon(self) -> None:
        if self._consumer is not None and self._events:
            self._will_publish = True
            self._consumer.hub.call_later(_EVENTS_INTERVAL_S, self.publish_events)
