"""Webhooks of tasks: the URL that is told how a task ended, the events that it gets, and the state of the delivery."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

#: Before the name of a terminal status: `task.succeeded`.
_TASK = "task."


class WebhookEvent(StrEnum):
    """Types of events. A task that becomes a dead letter has failed."""

    SUCCEEDED = f"{_TASK}succeeded"
    FAILED = f"{_TASK}failed"
    CANCELED = f"{_TASK}canceled"
    EXPIRED = f"{_TASK}expired"

    @property
    def status(self) -> str:
        """The status with which the task ended."""
        return self.removeprefix(_TASK)

    @staticmethod
    def of_status(status: str) -> WebhookEvent:
        return WebhookEvent(f"{_TASK}{status}")


@dataclass(frozen=True)
class Webhook:
    """The receiver of a task's event, which is known when the task is accepted."""

    url: str
    #: HOST:PORT of the URL, after OWNER/ if the task has an owner: events for one receiver share its limits and its pauses
    receiver: str
    events: tuple[WebhookEvent, ...]


class WebhookState(StrEnum):
    """State of an event's delivery."""

    PENDING = "pending"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


@dataclass(frozen=True)
class WebhookAttempt:
    """One request to a receiver; orjson serializes it directly."""

    #: ms since the epoch, on the relay's clock
    at_ms: int
    duration_ms: float
    #: HTTP status of the answer; None without one
    status: int | None = None
    #: reason for which there was no answer
    error: str | None = None


@dataclass(frozen=True)
class WebhookDelivery:
    """Delivery of the event of a task that has ended; orjson serializes `attempts` and `last_attempts`."""

    state: WebhookState
    attempts: int = 0
    #: newest last
    last_attempts: tuple[WebhookAttempt, ...] = ()
    #: ms since the epoch, on the store's clock; 0 if there is no further attempt
    next_attempt_at_ms: int = 0
