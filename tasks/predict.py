"""The predict task as Celery sees it: a request for each message, its events, its acknowledgement.

Nothing is executed by Celery's pool. The strategy hands each message to the pipeline, and the pipeline's answers come back to the
main loop, where Celery's own bookkeeping (`on_accepted`, `on_success`, `on_failure`) runs.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import Task, signals
from celery.exceptions import InvalidTaskError
from celery.worker import state
from celery.worker.request import Request

from inference.errors import InferenceError
from inference.messages import PREDICT_TASK, Outcome, QueueMessage
from tasks.jobs import Delivery, ItemEnd
from tasks.main_loop import MainLoop
from tasks.worker import InferenceWorker

logger = logging.getLogger(__name__)


class PredictTask(Task):  # type: ignore[misc] # Celery has no types
    """`tasks.predict(model=..., items=[...])`: see `inference.messages.QueueMessage`."""

    name = PREDICT_TASK
    Strategy = "tasks.predict:predict_strategy"
    acks_late = True
    ignore_result = True
    send_events = True

    def run(self, **_: Any) -> None:
        """Only reached by calling the task as a function."""
        raise NotImplementedError("send a message to the model's queue; a worker's pipeline runs it")


class PredictRequest(Request):  # type: ignore[misc] # Celery has no types
    """Celery's view of one message. `terminate` and `revoke` cancel the records; no process is killed."""

    def __init__(self, message: Any, *, worker: InferenceWorker, consumer: Any, **options: Any) -> None:
        super().__init__(
            message,
            on_ack=message.ack_log_error,
            on_reject=message.reject_log_error,
            app=consumer.app,
            hostname=consumer.hostname,
            connection_errors=consumer.connection_errors,
            **options,
        )
        self._worker = worker
        self._consumer = consumer
        try:
            self.queue_message = QueueMessage.from_kwargs(self.kwargs)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidTaskError(f"not a predict message: {error!r}") from error

    @property
    def task_ids(self) -> list[str]:
        return [item.task_id for item in self.queue_message.items]

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002 Celery's name
        # The dispatcher of now: the one of the request's birth is gone after a reconnect.
        dispatcher = self._consumer.event_dispatcher
        if dispatcher and dispatcher.enabled:
            dispatcher.send(type, uuid=self.id, **fields)

    def terminate(self, pool: Any, signal: Any = None) -> None:  # noqa: ARG002 Celery's signature
        self._worker.cancel(self.task_ids)

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        self._worker.cancel(self.task_ids)
        super()._announce_revoked(reason, terminated, signum, expired)

    def is_revoked(self) -> bool:
        return self.id in state.revoked

    def started(self) -> None:
        self.on_accepted(os.getpid(), time.monotonic())

    def done(self, ends: Mapping[str, ItemEnd], runtime_s: float) -> None:
        """Every item has ended: acknowledge, and say how it went."""
        if self.is_revoked() and self.revoked():
            return
        outcomes = [end.outcome for end in ends.values() if end.outcome is not None]
        failure = next((outcome.error for outcome in outcomes if outcome.error), None)
        if failure is not None:
            self.on_failure(_exception_info(InferenceError.from_dict(failure)), return_ok=True)
        elif outcomes:
            self.on_success((False, _summary(outcomes), runtime_s))
        else:  # nothing was to be done here
            state.task_ready(self)
            self.acknowledge()


def predict_strategy(task: Task, _app: Any, consumer: Any) -> Callable[..., None]:
    """What Celery calls for each predict message; made again on each reconnect."""
    worker: InferenceWorker = consumer.controller.inference
    main_loop: MainLoop = consumer.controller.inference_main_loop
    main_loop.hub = consumer.hub

    def handle(message: Any, body: Any, _ack: Any, _reject: Any, _callbacks: Any, **_: Any) -> None:
        if body is not None:
            raise InvalidTaskError("Celery's message protocol 1 is not supported; use protocol 2")
        request = PredictRequest(
            message,
            worker=worker,
            consumer=consumer,
            task=task,
            body=message.body,
            headers=message.headers,
        )
        if request.revoked():
            return
        model = request.queue_message.model.name
        if not worker.serves(model):
            logger.error("task %s wants %s, which this worker does not serve; it goes back", request.id, model)
            request.reject(requeue=True)
            return
        signals.task_received.send(sender=consumer, request=request)
        request.send_event(
            "task-received",
            name=request.name,
            args=request.argsrepr,
            kwargs=request.kwargsrepr,
            root_id=request.root_id,
            parent_id=request.parent_id,
            retries=0,
            eta=None,
            expires=None,
        )
        state.task_reserved(request)
        worker.submit(_delivery(request, main_loop))

    return handle


def _delivery(request: PredictRequest, main_loop: MainLoop) -> Delivery:
    began = time.monotonic()

    def done(ends: dict[str, ItemEnd]) -> None:
        runtime_s = time.monotonic() - began
        main_loop.call(lambda: request.done(ends, runtime_s))

    return Delivery(
        request.queue_message,
        on_started=lambda: main_loop.call(request.started),
        on_done=done,
        is_revoked=request.is_revoked,
    )


def _summary(outcomes: list[Outcome]) -> str:
    """What events and Flower show: the classes, not the vectors."""
    shown = [
        f"{outcome.result.class_index} {outcome.result.label or ''} {outcome.result.confidence_level:.3f}"
        for outcome in outcomes
        if outcome.result is not None
    ]
    return "; ".join(" ".join(text.split()) for text in shown)


def _exception_info(error: InferenceError) -> ExceptionInfo:
    try:
        raise error
    except InferenceError:
        info = ExceptionInfo()
    info.exception = error  # billiard wraps it for a pickle that is never made; events would name the wrapper
    return info
