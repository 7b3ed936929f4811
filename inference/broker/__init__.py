"""Putting a predict message on the queue: the protocol, and its adapters for Redis and RabbitMQ."""

from __future__ import annotations

from typing import Protocol

from inference.broker.envelope import Resent
from inference.domain import QueueMessage
from inference.task_store.protocol import Enqueue

#: Of a request: 0 is usual, 9 goes first.
USUAL_PRIORITY = 0
HIGHEST_PRIORITY = 9


class Broker(Protocol):
    """Where predict messages go."""

    @property
    def has_priorities(self) -> bool:
        """Whether messages of a higher priority overtake others."""

    def prepare(self, queue: str, message: QueueMessage, priority: int = USUAL_PRIORITY) -> Enqueue | None:
        """The message for a push by the record store; None where the broker is another server: then `publish` it."""

    def publish(self, queue: str, message: QueueMessage, priority: int = USUAL_PRIORITY) -> None:
        """Returns when the broker has it. Raises ServiceUnavailable."""

    def resend(self, queue: str, message: Resent) -> None:
        """Put a message on its queue as it was. Returns when the broker has it. Raises ServiceUnavailable."""

    def depth(self, queue: str) -> int:
        """Messages that no worker has taken. Raises ServiceUnavailable."""
