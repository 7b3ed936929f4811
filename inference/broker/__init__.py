"""Broker of predict messages: the protocol, and its adapters for Redis and RabbitMQ."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from inference.broker.envelope import Resent
from inference.domain import QueueMessage
from inference.task_store.protocol import Enqueue

#: Priorities of a request: 0 is usual, 9 is the highest.
USUAL_PRIORITY = 0
HIGHEST_PRIORITY = 9


class Broker(Protocol):
    """Puts predict messages on their queues."""

    @property
    def has_priorities(self) -> bool:
        """Whether messages of a higher priority overtake other messages."""

    @property
    def has_turns(self) -> bool:
        """Whether owners with waiting messages take turns; else messages come in the order of acceptance."""

    def prepare(self, queue: str, message: QueueMessage, priority: int = USUAL_PRIORITY, *, owner: str = "") -> Enqueue | None:
        """Return the message for a push by the task store; None if the broker is another server: then `publish` it.

        Args:
            owner: the owner of its tasks; empty if they have none.
        """

    def publish(
        self,
        queue: str,
        message: QueueMessage,
        priority: int = USUAL_PRIORITY,
        *,
        owner: str = "",
        is_redelivered: bool = False,
    ) -> None:
        """Publish a message; return when the broker has it. Raises ServiceUnavailable.

        Args:
            owner: as in `prepare`.
            is_redelivered: it replaces a message that was lost, maybe with the worker that had it. RabbitMQ delivers such a
                message again by itself, so only Redis marks the new one.
        """

    def resend(self, queue: str, message: Resent) -> None:
        """Put a message on its queue, unchanged; return when the broker has it. Raises ServiceUnavailable."""

    def forget(self, queue: str, task_ids: Collection[str]) -> None:
        """Take tasks out of the messages that no worker has taken. Raises ServiceUnavailable.

        RabbitMQ cannot do that: there a message keeps the ids until a worker takes it and finds no record.
        """

    def get_owners(self, queue: str) -> set[str]:
        """Return the owners of messages that no worker has taken; '' is among them if some have no owner.

        Only a broker with turns knows them. Raises ServiceUnavailable.
        """

    def get_depth(self, queue: str) -> int:
        """Return the number of messages that no worker has taken. Raises ServiceUnavailable."""
