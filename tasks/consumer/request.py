"""Celery's request of one predict message: its events, its acknowledgement, its revocation."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.utils.functional import maybe_list
from celery.worker import state
from celery.worker.request import Request

from inference.domain import Outcome, QueueMessage, TaskStatus
from inference.errors import InferenceError, InvalidRequest, shown
from tasks.consumer.main_loop import MainLoop
from tasks.pipeline.jobs import Delivery, Retry, UnregisteredTask
from tasks.pipeline.tracing import received
from tasks.worker.background_calls import Ends
from tasks.worker.plain_messages import is_accepted
from tasks.worker.worker import InferenceWorker


class ItemsFailed(Exception):
    """Some tasks of a message with several tasks failed."""


class CeleryRequest(Request):  # type: ignore[misc] # Celery has no types
    """Reports the message's events in the pipeline to Celery. `terminate` cancels the tasks and kills no process.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: it is not a message of Celery's protocol 2.
    """

    def __init__(self, message: Any, *, worker: InferenceWorker, main_loop: MainLoop, consumer: Any, **options: Any) -> None:
        super().__init__(
            message,
            on_ack=message.ack_log_error,
            on_reject=message.reject_log_error,
            app=consumer.app,
            hostname=consumer.hostname,
            connection_errors=consumer.connection_errors,
            **options,
        )
        if [type(part) for part in (self.id, *self._payload)] != [str, list, dict, dict]:
            raise ValueError("id, args, kwargs and embed must be a text, a list and two mappings")
        self._worker = worker
        self._main_loop = main_loop
        self._consumer = consumer
        self._task_ids: list[str] = []
        self._started_at = 0.0
        self._runtime_s = 0.0
        self._retries = 0
        self._terminated_by: Any = None

    def make_delivery(self) -> Delivery:
        """Make the delivery that the pipeline gets.

        Raises:
            InferenceError: this is not a predict message, and no record can be made that says so.
        """
        unregistered = [] if is_accepted(self.kwargs) else self._unregistered()
        message = _message_of(unregistered) if unregistered else _accepted(self.kwargs)
        self._task_ids = [item.task_id for item in message.items]
        is_refused = any(task.refusal for task in unregistered)
        if not is_refused:  # else events show the kwargs as they were sent
            self._kwargsrepr = message.shown()
        return Delivery(
            message,
            on_started=self._on_started,
            on_retried=lambda retry: self._main_loop.call(lambda: self._on_retried(retry)),
            on_done=self._on_done,
            is_revoked=self._is_revoked,
            unregistered={task.request.task_id: task for task in unregistered},
        )

    def send_received(self) -> None:
        self.send_event(
            "task-received",
            name=self.name,
            args=self.argsrepr,
            kwargs=self.kwargsrepr,
            root_id=self.root_id,
            parent_id=self.parent_id,
            retries=0,
            eta=self.eta and self.eta.isoformat(),
            expires=self.expires and self.expires.isoformat(),
        )

    def refuse(self, error: InferenceError) -> None:
        """Fail a message that can have no record: an event says so, and the message is acknowledged."""
        self.on_failure(_exception_info(error), return_ok=True)

    def terminate(self, pool: Any, signal: Any = None) -> None:  # noqa: ARG002 Celery's signature
        self._terminated_by = signal
        self._worker.store_calls.cancel(self._task_ids, running=True)

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002 Celery's name
        if type == "task-started" and self._retries:
            fields["retries"] = self._retries  # after a redelivery, task-received has set it to 0 again
        self._main_loop.send_event(type, uuid=self.id, **fields)

    def _unregistered(self) -> Sequence[UnregisteredTask]:
        left_s = (self.expires - datetime.now(UTC)).total_seconds() if self.expires else None
        if any(self._payload[2].values()):
            raise InvalidRequest("callbacks, chains and chords are not supported: results go to sinks and webhooks")
        queue = self.delivery_info["routing_key"]
        with received(self._worker.tracer, queue, self._request_dict) as trace:
            return self._worker.plain_messages.read(
                self.kwargs, message_id=self.id, queue=queue, expires_in_s=left_s, trace=trace
            )

    def _is_revoked(self, task_id: str) -> bool:
        """Return whether Celery's remote control revoked this message, or this task of it."""
        stamped = ({*maybe_list(self.stamps.get(name) or ())} & {*values} for name, values in state.revoked_stamps.items())
        return self.id in state.revoked or task_id in state.revoked or any(stamped)

    def _on_started(self) -> None:
        self._started_at = started_at = time.monotonic()
        self._main_loop.call(lambda: self.on_accepted(os.getpid(), started_at))

    def _on_retried(self, retry: Retry) -> None:
        state.active_requests.discard(self)
        self._retries = retry.attempts
        self.send_event("task-retried", exception=repr(retry.error), traceback="", retries=self._retries)

    def _on_done(self, ends: Ends) -> None:
        if self._started_at:
            self._runtime_s = time.monotonic() - self._started_at
        self._worker.store_calls.resolve_outcomes(ends, lambda resolved: self._main_loop.call(lambda: self._finish(resolved)))

    def _finish(self, ends: Ends) -> None:
        """Acknowledge the message once every item has ended, and report the outcome."""
        outcomes = {task_id: end.outcome for task_id, end in ends.items() if end.outcome is not None}
        statuses = {outcome.status for outcome in outcomes.values()}
        if not outcomes:  # another worker has the tasks
            state.task_ready(self)
            self.acknowledge()
        elif statuses == {TaskStatus.CANCELED}:
            reason = "terminated" if self._terminated_by else "revoked"
            self._announce_revoked(reason, self._terminated_by is not None, self._terminated_by, expired=False)
        elif statuses <= {TaskStatus.SUCCEEDED, TaskStatus.CANCELED}:
            runtime_s = self._runtime_s or max(end.runtime_s for end in ends.values())
            self.on_success((False, _summary(outcomes), runtime_s))
        else:
            self.on_failure(_exception_info(_failure(outcomes)), return_ok=True)


def _accepted(kwargs: Mapping[str, Any]) -> QueueMessage:
    try:
        return QueueMessage.from_kwargs(kwargs)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidRequest(f"the kwargs are not those of a predict message: {shown(str(error))}") from error


def _message_of(unregistered: Sequence[UnregisteredTask]) -> QueueMessage:
    return QueueMessage(unregistered[0].request.model, tuple(task.request.item for task in unregistered))


def _summary(outcomes: Mapping[str, Outcome]) -> str:
    """Describe outcomes for events and Flower: classes, not vectors; each of several tasks after its id."""
    shown = {task_id: _shown(outcome) for task_id, outcome in outcomes.items()}
    if len(shown) == 1:
        return next(iter(shown.values()))
    return "; ".join(f"{task_id}: {text}" for task_id, text in shown.items())


def _shown(outcome: Outcome) -> str:
    if outcome.result is not None:
        label = outcome.result.label or ""
        return " ".join(f"{outcome.result.class_index} {label} {float(outcome.result.confidence_level):.3f}".split())
    return repr(InferenceError.from_dict(outcome.error)) if outcome.error else outcome.status


def _failure(outcomes: Mapping[str, Outcome]) -> Exception:
    if len(outcomes) > 1:
        return ItemsFailed(_summary(outcomes))
    (outcome,) = outcomes.values()
    return InferenceError.from_dict(outcome.error or {"code": "", "detail": outcome.status})


def _exception_info(error: Exception) -> ExceptionInfo:
    try:
        raise error  # noqa: TRY301 billiard wants a traceback
    except Exception:  # noqa: BLE001 only to get a traceback
        info = ExceptionInfo()
    info.exception = error  # billiard wraps it for a pickle that is never made; events would show the wrapper
    return info
