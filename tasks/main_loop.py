"""Back from the pipeline's threads to Celery's main loop, in order."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from vine import promise

logger = logging.getLogger(__name__)


class MainLoop:
    """Runs calls on the main loop in the order they came.

    `Hub.call_soon` keeps a set, which has no order: so one deque, and one callback that empties it.
    """

    def __init__(self) -> None:
        self._consumer: Any = None
        self._calls: deque[Callable[[], None]] = deque()
        self._promise = promise(self.run_pending)

    def attach(self, consumer: Any) -> None:
        """Run on the loop of this consumer, at the start and after each reconnect."""
        self._consumer = consumer

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
        dispatcher = self._consumer and self._consumer.event_dispatcher
        if dispatcher:
            dispatcher.flush()  # by itself it does so on the next turn, and forgets them when the connection is lost before
