"""Celery's consumer, where a message that cannot be read ends neither the worker nor itself: it is put aside.

A message can be of any form, since whoever reaches the broker can send one. Celery logs and drops some of those that it cannot
use, and lets others end the worker, whose next one gets the same message.
"""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from amqp.exceptions import AMQPError
from celery import Celery, signals
from celery.exceptions import WorkerShutdown
from celery.worker.consumer import Consumer

from inference.broker.amqp import LOGIN_REFUSED
from inference.broker.rejected import UNREADABLE
from inference.domain import PREDICT_TASK
from inference.errors import shown
from tasks.worker.redelivery import Redeliveries, id_of_redelivered, task_ids_of

logger = logging.getLogger(__name__)

#: Seconds until a login that RabbitMQ refused is tried again.
_LOGIN_INTERVAL_S = 2.0


def register_predict_alone(app: Celery) -> None:
    """Take Celery's own tasks (`celery.chord`, …) out: they would run on the main loop, and nothing here needs them."""
    for name in [name for name in app.tasks if name.startswith("celery.")]:
        app.tasks.unregister(name)


class InferenceConsumer(Consumer):  # type: ignore[misc] # Celery has no types
    """Puts aside what it cannot handle; `server.py dead-letters` lists, inspects, replays and discards it."""

    def start(self) -> None:
        """Run until the worker stops, through lost connections. What RabbitMQ refuses us for good is one line of the log."""
        try:
            super().start()
        except AMQPError as error:
            logger.critical("RabbitMQ refuses what this worker needs: %s", error)
            raise WorkerShutdown(1) from error

    def connect(self) -> Any:
        """Connect as Celery does; a login that is refused is tried again, since `check_servers` saw it work."""
        try:
            return super().connect()
        except LOGIN_REFUSED as error:
            time.sleep(_LOGIN_INTERVAL_S)
            raise ConnectionError(f"RabbitMQ refuses the login: {error.reply_text}") from error

    def create_task_handler(self, *arguments: Any, **options: Any) -> Callable[[Any], None]:
        """Celery's handler of a message, which lets no message end the worker."""
        handle = super().create_task_handler(*arguments, **options)
        redeliveries: Redeliveries = self.controller.inference_redeliveries
        redeliveries.forget_waiting()

        def handle_safely(message: Any) -> None:
            try:
                handle(message)
            except self.connection_errors:
                raise
            except Exception as error:
                logger.exception("a message of %s cannot be handled", message.delivery_info.get("routing_key"))
                self._put_aside(message, f"it cannot be handled: {shown(error)}")

        def take(message: Any) -> None:
            message_id = id_of_redelivered(message)
            if message_id is None:
                handle_safely(message)
            else:
                redeliveries.take(
                    message_id,
                    handle=lambda: handle_safely(message),
                    refuse=lambda deaths: self._give_up(message, f"{deaths} workers ended while they took it"),
                )

        return take

    def on_unknown_message(self, body: Any, message: Any) -> None:  # noqa: ARG002 Celery's signature
        self._put_aside(message, "it is no message of Celery's")
        signals.task_rejected.send(sender=self, message=message, exc=None)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002 Celery's signature
        name, task_id = message.headers.get("task"), message.headers.get("id")
        self._put_aside(message, f"there is no task {shown(name)} here, only {PREDICT_TASK}")
        if self.event_dispatcher and isinstance(task_id, str):
            self.event_dispatcher.send("task-failed", uuid=task_id, exception=f"NotRegistered({shown(name)})")
        signals.task_unknown.send(sender=self, message=message, exc=exc, name=name, id=task_id)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002 Celery's signature
        self._put_aside(message, f"it is no valid task: {shown(exc)}")
        signals.task_rejected.send(sender=self, message=message, exc=exc)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        self._put_aside(message, f"it cannot be decoded: {shown(exc)}")

    def _put_aside(self, message: Any, reason: str) -> None:
        """Keep the message, and take it from its queue once it is kept."""
        queue = str((message.delivery_info or {}).get("routing_key"))
        self.controller.inference.store_calls.put_aside(queue, _content(message), reason, then=lambda: self._reject_soon(message))

    def _give_up(self, message: Any, reason: str) -> None:
        """End the tasks of a message, and put it aside where one of them is nowhere else."""

        def end() -> None:
            if self.controller.inference_burial.move_to_dead_letters(task_ids_of(message), reason):
                self._reject_soon(message)
            else:
                self._put_aside(message, reason)

        self.controller.inference.store_calls.do(end)

    def _reject_soon(self, message: Any) -> None:
        """Take the message from its queue. From any thread."""

        def reject() -> None:
            if not message.acknowledged:
                message.reject_log_error(logger, self.connection_errors)

        self.controller.inference_main_loop.call(reject)


def _content(message: Any) -> Mapping[str, Any]:
    """As `RejectedMessage.content`."""
    raw = getattr(message, "_raw", None)  # of Redis: the message as it was in the queue
    if isinstance(raw, Mapping) and UNREADABLE in raw:
        return {UNREADABLE: raw[UNREADABLE]}
    body = message.body
    if isinstance(body, str):
        body = body.encode(errors="replace")
    if not isinstance(body, bytes | bytearray | memoryview):
        return {UNREADABLE: raw if raw is not None else repr(body)}
    return {
        "body": base64.b64encode(body).decode(),
        "headers": dict(message.headers),
        "content_type": message.content_type,
        "content_encoding": message.content_encoding,
        "priority": (message.properties or {}).get("priority"),
    }
