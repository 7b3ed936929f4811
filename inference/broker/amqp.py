"""Broker on RabbitMQ. Messages are published with confirms: when `publish` returns, the message is on the broker's disk."""

from __future__ import annotations

import base64
import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from amqp.exceptions import AccessRefused, AMQPError, NotAllowed, NotFound
from kombu import Connection, Queue
from kombu.exceptions import KombuError, OperationalError
from kombu.pools import producers

from inference.broker import HIGHEST_PRIORITY, USUAL_PRIORITY, envelope
from inference.broker.amqp_queues import MAX_PRIORITY, ModelQueue, has_strict_priorities
from inference.domain import QueueMessage
from inference.errors import ConfigurationError, ServiceUnavailable
from inference.runtime.tls import amqp_tls
from inference.settings import BrokerSettings
from inference.task_store.protocol import Enqueue

logger = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 3
_CONFIRM_TIMEOUT_S = 5

#: Errors of RabbitMQ for a wrong user or password, and for a virtual host that is missing or that the user may not use.
LOGIN_REFUSED = (AccessRefused, NotAllowed)


def check_login(settings: BrokerSettings) -> None:
    """Raise ConfigurationError if RabbitMQ refuses the login. A server that is down is only logged: it is waited for later."""
    try:
        tls = amqp_tls(settings)
        with Connection(settings.url, ssl=tls or False, connect_timeout=_CONNECT_TIMEOUT_S) as connection:
            connection.ensure_connection(max_retries=1, timeout=_CONNECT_TIMEOUT_S)
    except LOGIN_REFUSED as error:
        raise ConfigurationError(f"broker.url: RabbitMQ refuses the login: {error.reply_text}", field="broker.url") from error
    except (AMQPError, KombuError, OperationalError, OSError) as error:
        logger.warning("broker.url: RabbitMQ does not answer: %s", error)


def predict_queue(name: str, settings: BrokerSettings) -> Queue:
    """Return a model's queue. Every process must declare it in the same way, or the broker answers with an error."""
    if not settings.is_amqp:
        return Queue(name, exchange="", routing_key=name)
    # No x-delivery-limit: it also counts requeues and closed channels. The record counts attempts.
    arguments: dict[str, Any] = {"x-queue-type": settings.queue_type}
    if settings.queue_type == "classic":
        arguments[MAX_PRIORITY] = HIGHEST_PRIORITY
    return ModelQueue(name, exchange="", routing_key=name, queue_arguments=arguments)


class AmqpBroker:
    """`Broker` on RabbitMQ. Safe to share between threads and greenlets."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._settings = settings
        self._connection = Connection(
            settings.url,
            ssl=amqp_tls(settings) or False,
            connect_timeout=_CONNECT_TIMEOUT_S,
            transport_options={"confirm_publish": True, "read_timeout": 10, "write_timeout": 10},
        )
        #: by queue that was declared, whether it has priorities
        self._declared: dict[str, bool] = {}
        self._has_strict_priorities: bool | None = None

    @property
    def has_priorities(self) -> bool:
        """Whether all queues have priorities; until one is declared, whether those of the server can have them."""
        if self._settings.queue_type == "classic":
            return True
        if self._declared:
            return all(self._declared.values())
        if self._has_strict_priorities is None:
            self._has_strict_priorities = self._ask_for_priorities()
        return self._has_strict_priorities

    def _ask_for_priorities(self) -> bool:
        with _unavailable_when_down(), producers[self._connection].acquire(block=True, timeout=_CONNECT_TIMEOUT_S) as producer:
            producer.connection.ensure_connection(max_retries=1, timeout=_CONNECT_TIMEOUT_S)
            return has_strict_priorities(producer.connection.connection)

    #: each queue keeps the order of acceptance
    has_turns = False

    def get_owners(self, queue: str) -> set[str]:
        raise NotImplementedError(f"{queue} has no turns")

    def prepare(
        self,
        queue: str,  # noqa: ARG002 nothing to prepare
        message: QueueMessage,  # noqa: ARG002
        priority: int = USUAL_PRIORITY,  # noqa: ARG002
        *,
        owner: str = "",  # noqa: ARG002
    ) -> Enqueue | None:
        return None

    def publish(
        self,
        queue: str,
        message: QueueMessage,
        priority: int = USUAL_PRIORITY,
        *,
        owner: str = "",  # noqa: ARG002 no turns
        is_redelivered: bool = False,  # noqa: ARG002 RabbitMQ marks messages itself
    ) -> None:
        own_id = envelope.message_id(message)
        self._publish(
            queue,
            envelope.body(message),
            headers=envelope.headers(message, own_id),
            content_type=envelope.CONTENT_TYPE,
            content_encoding=envelope.CONTENT_ENCODING,
            correlation_id=own_id,
            priority=priority,
        )

    def resend(self, queue: str, message: envelope.Resent) -> None:
        self._publish(
            queue,
            base64.b64decode(message.body),
            headers=dict(message.headers),
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            correlation_id=message.headers.get("id"),
            priority=message.priority,
        )

    def _publish(self, queue: str, body: bytes, *, priority: int | None, **properties: Any) -> None:
        with _unavailable_when_down(), producers[self._connection].acquire(block=True, timeout=_CONNECT_TIMEOUT_S) as producer:
            if queue not in self._declared:
                declared = predict_queue(queue, self._settings)(producer.channel)
                declared.declare()
                self._declared[queue] = declared.has_priorities
            producer.publish(
                body,
                exchange="",
                routing_key=queue,
                delivery_mode=2,
                mandatory=True,
                retry=True,
                retry_policy={"max_retries": 2, "interval_start": 0.1, "interval_step": 0.2},
                confirm_timeout=_CONFIRM_TIMEOUT_S,
                priority=priority if self._declared[queue] else None,
                **properties,
            )

    def forget(self, queue: str, task_ids: Collection[str]) -> None:
        """Do nothing: RabbitMQ has no access to a message in the middle of a queue."""

    def get_depth(self, queue: str) -> int:
        with _unavailable_when_down(), producers[self._connection].acquire(block=True, timeout=_CONNECT_TIMEOUT_S) as producer:
            connection = producer.connection
            # kombu's pool may return a connection that was closed after an error; it has no channels until it connects again.
            connection.ensure_connection(max_retries=1, timeout=_CONNECT_TIMEOUT_S)
            channel = connection.channel()  # a new one: RabbitMQ closes it if the queue does not exist
            try:
                return int(channel.queue_declare(queue, passive=True).message_count)
            except NotFound:
                return 0
            finally:
                channel.close()


@contextmanager
def _unavailable_when_down() -> Iterator[None]:
    try:
        yield
    except (AMQPError, KombuError, OperationalError, OSError) as error:
        public = "the broker does not answer"
        raise ServiceUnavailable(f"{public}: {error}", public=public, retry_after_s=1) from error
