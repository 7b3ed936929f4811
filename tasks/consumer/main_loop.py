"""Back from the pipeline's threads to Celery's main loop, in order."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from vine import promise

logger = logging.getLogger(__name__)

#: Seconds that an event waits for others, since publishing costs more than what it carries.
_EVENTS_INTERVAL_S = 0.1
#: Events that wait for a connection; of more, the oldest are forgotten.
_MAX_EVENTS = 10_000
#: In one message. Celery's own 24 are those of eight requests.
_EVENTS_A_MESSAGE = 1_000


class MainLoop:
    """Runs calls on the main loop in the order they came, and publishes events, many at a time.

    `Hub.call_soon` keeps a set, which has no order: so one deque, and one callback that empties it. Celery's dispatcher forgets
    what it holds when its connection is lost: so events wait here, and go to the dispatcher that is there then.
    """

    def __init__(self) -> None:
        self._consumer: Any = None
        self._calls: deque[Callable[[], None]] = deque()
        self._promise = promise(self.run_pending)
        self._events: deque[tuple[str, dict[str, Any]]] = deque(maxlen=_MAX_EVENTS)
        self._will_publish = False

    def attach(self, consumer: Any) -> None:
        """Run on the loop of this consumer, at the start and after each reconnect."""
        self._consumer = consumer
        self._publish_soon()  # Celery clears its timers with a connection that it lost

    def call(self, function: Callable[[], None]) -> None:
        """From any thread."""
        self._calls.append(function)
        if self._consumer is not None:
            self._consumer.hub.call_soon(self._promise)

    def run_pending(self) -> None:
        """On the main loop, or after it has ended."""
        while self._calls:
            try:
                self._calls.popleft()()
            except Exception:
                # One message's bookkeeping must not stop the others'; its task has ended in the record already.
                logger.exception("the bookkeeping of a message failed")

    def send_event(self, kind: str, **fields: Any) -> None:
        """On the main loop: an event of now, `task-started` say, that is published within `_EVENTS_INTERVAL_S`."""
        self._events.append((kind, {"timestamp": time.time(), **fields}))
        if not self._will_publish:
            self._publish_soon()

    def publish_events(self) -> None:
        """On the main loop, or after it has ended."""
        self._will_publish = False
        dispatcher = self._consumer and self._consumer.event_dispatcher
        if not dispatcher:
            return  # the next connection's
        dispatcher.buffer_limit = _EVENTS_A_MESSAGE
        while self._events:
            kind, fields = self._events.popleft()
            dispatcher.send(kind, **fields)  # nothing where events are disabled
        dispatcher.flush()

    def _publish_soon(self) -> None:
        if self._consumer is not None and self._events:
            self._will_publish = True
            self._consumer.hub.call_later(_EVENTS_INTERVAL_S, self.publish_events)
