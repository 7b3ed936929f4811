"""Celery's consumer, in which a message that cannot be read is put aside: it neither ends the worker nor is lost.

A message can have any form, since any client that reaches the broker can send one. Celery logs and drops some of the messages
that it cannot use, and ends the worker at others; the next worker then gets the same message.
"""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from amqp.exceptions import AMQPError, ResourceLocked
from celery import Celery, signals
from celery.exceptions import WorkerShutdown
from celery.worker.consumer import Consumer

from inference.broker import envelope
from inference.broker.amqp import LOGIN_REFUSED
from inference.broker.rejected import UNREADABLE
from inference.domain import PREDICT_TASK
from inference.errors import ServiceUnavailable, shown
from tasks.worker.redelivery import Redeliveries, id_of_redelivered, task_ids_of

logger = logging.getLogger(__name__)

#: Seconds until a login that RabbitMQ refused is tried again.
_LOGIN_INTERVAL_S = 2.0
#: Seconds until a message of a newer version is put back, and how often that is done before it is put aside.
_PUT_BACK_AFTER_S = 0.5
_MAX_PUT_BACKS = 120


def unregister_celery_tasks(app: Celery) -> None:
    """Unregister Celery's own tasks (`celery.chord`, …): they would run on the main loop, and nothing here needs them."""
    for name in [name for name in app.tasks if name.startswith("celery.")]:
        app.tasks.unregister(name)


class InferenceConsumer(Consumer):  # type: ignore[misc] # Celery has no types
    """Celery's consumer, which puts aside messages that it cannot handle.

    `server.py dead-letters` lists, inspects, replays and discards them.
    """

    #: whether a message of a newer version has come, which is logged once
    _has_met_newer = False

    def start(self) -> None:
        """Run until the worker stops, also after lost connections. A permanent refusal of RabbitMQ is logged as one line."""
        try:
            super().start()
        except ResourceLocked as error:
            logger.critical(
                "RabbitMQ has another worker named %s: leave out -n, or choose another name (%s)", self.hostname, error
            )
            raise WorkerShutdown(1) from error
        except AMQPError as error:
            logger.critical("RabbitMQ refuses an operation that this worker needs: %s", error)
            raise WorkerShutdown(1) from error

    def connect(self) -> Any:
        """Connect as Celery does; try a login that is refused again, since it worked in `check_servers`."""
        try:
            return super().connect()
        except LOGIN_REFUSED as error:
            time.sleep(_LOGIN_INTERVAL_S)
            raise ConnectionError(f"RabbitMQ refuses the login: {error.reply_text}") from error

    def on_close(self) -> None:
        """Do Celery's own work after a lost connection. Until the next one, the main loop waits for the broker."""
        self.controller.inference_main_loop.end()
        super().on_close()

    def create_task_handler(self, *arguments: Any, **options: Any) -> Callable[[Any], None]:
        """Return Celery's handler of a message, in which no message can end the worker. It is made when the main loop starts."""
        self.controller.inference_main_loop.begin(self)
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
            if envelope.newer_format(message.headers) is not None:
                self._put_back(message)
            elif message_id is None:
                handle_safely(message)
            else:
                redeliveries.take(
                    message_id,
                    handle=lambda: handle_safely(message),
                    refuse=lambda deaths: self._give_up(message, f"{deaths} workers ended while they took it"),
                )

        return take

    def on_unknown_message(self, body: Any, message: Any) -> None:  # noqa: ARG002 Celery's signature
        self._put_aside(message, "it is not a message of Celery")
        signals.task_rejected.send(sender=self, message=message, exc=None)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002 Celery's signature
        name, task_id = message.headers.get("task"), message.headers.get("id")
        self._put_aside(message, f"this worker has no task {shown(name)}, only {PREDICT_TASK}")
        if self.event_dispatcher and isinstance(task_id, str):
            self.event_dispatcher.send("task-failed", uuid=task_id, exception=f"NotRegistered({shown(name)})")
        signals.task_unknown.send(sender=self, message=message, exc=exc, name=name, id=task_id)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002 Celery's signature
        self._put_aside(message, f"it is not a valid task: {shown(exc)}")
        signals.task_rejected.send(sender=self, message=message, exc=exc)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        self._put_aside(message, f"it cannot be decoded: {shown(exc)}")

    def _put_aside(self, message: Any, reason: str) -> None:
        """Keep the message, and take it from its queue once it is kept."""
        queue = str((message.delivery_info or {}).get("routing_key"))
        self.controller.inference.store_calls.put_aside(queue, _content(message), reason, then=lambda: self._reject_soon(message))

    def _put_back(self, message: Any) -> None:
        """Put a message of a newer version at the end of its queue, for a worker of that version; aside if none takes it."""
        content, times = _content(message), envelope.put_backs(message.headers)
        if UNREADABLE in content or times >= _MAX_PUT_BACKS:
            found = f"format {envelope.newer_format(message.headers)}, this worker reads {envelope.MESSAGE_FORMAT}"
            self._put_aside(message, f"it is of a newer version ({found}), and no worker of that version took it")
            return
        if not self._has_met_newer:
            self._has_met_newer = True
            logger.warning("message %s is of a newer version: such messages are left to workers of it", message.headers.get("id"))
        queue = str((message.delivery_info or {}).get("routing_key"))
        resent = envelope.Resent(**{**content, "headers": {**content["headers"], envelope.PUT_BACKS_HEADER: times + 1}})

        def put_back() -> None:
            try:
                self.controller.inference_broker.resend(queue, resent)
            except ServiceUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 such as a priority that is no number; it would stay with this worker for ever
                self._put_aside(message, f"it is of a newer version, and cannot be put back: {shown(error)}")
            else:
                self._reject_soon(message)

        self.timer.call_after(_PUT_BACK_AFTER_S, lambda: self.controller.inference.store_calls.submit(put_back))

    def _give_up(self, message: Any, reason: str) -> None:
        """Make the tasks of a message dead letters; put the message aside if one of them has no record."""

        def end() -> None:
            if self.controller.inference_dead_letters.move_to_dead_letters(task_ids_of(message), reason):
                self._reject_soon(message)
            else:
                self._put_aside(message, reason)

        self.controller.inference.store_calls.submit(end)

    def _reject_soon(self, message: Any) -> None:
        """Take the message from its queue. May be called on any thread."""

        def reject() -> None:
            if not message.acknowledged:
                message.reject_log_error(logger, self.connection_errors)

        self.controller.inference_main_loop.call(reject)


def _content(message: Any) -> Mapping[str, Any]:
    """Return the message in the form of `RejectedMessage.content`."""
    raw = getattr(message, "_raw", None)  # only with Redis: the message as it was in the queue
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
