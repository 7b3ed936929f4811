"""Delivery of events to webhooks: each receiver has its own outbox and limits, so that none waits for another."""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import orjson

from inference.domain import TaskRecord
from inference.errors import ServiceUnavailable
from inference.lifecycle.task_log import log_tasks, record_context
from inference.lifecycle.task_object import task_object, time_text
from inference.metrics.relay import webhook_deliveries, webhook_duration
from inference.runtime.log_context import log_context
from inference.runtime.loop_watch import TURN_LIMIT_S, LoopWatch
from inference.settings import WebhookSettings
from inference.sinks.webhook import WebhookAnswer, WebhookSender
from inference.task_store.protocol import ReceiverPause
from inference.task_store.stores import WebhookStore
from inference.webhook import Webhook, WebhookDelivery, WebhookEvent, WebhookState

if TYPE_CHECKING:
    from inference.tracing.tracer import Tracer, TraceSpan

logger = logging.getLogger(__name__)

#: Interval between two searches for due events, while all are delivered and after an outage of the task store, seconds.
_IDLE_S, _OUTAGE_S = 0.25, 2.0
#: Time in addition to a request's limit after which its event goes to another relay, seconds.
_LEASE_GRACE_S = 5.0
#: Attempts that the record of a task keeps.
_LOGGED = 10
#: Factor of each further pause of an event; longest pause of a receiver that is down, seconds.
_BACKOFF_FACTOR, _MAX_RECEIVER_PAUSE_S = 4, 60.0
_MAX_EXPONENT = 20  # keeps the power finite
#: Interval between two searches for events to give up, and their number in one call.
_GIVE_UP_INTERVAL_S, _GIVE_UP_LIMIT = 10.0, 500
#: Time that a stopping relay waits for requests that it has begun, seconds; their events are sent again otherwise.
_DRAIN_S = 3.0


class WebhookRelay:
    """Sends due events. Several instances may run: an event is leased to one of them.

    Args:
        jitter: returns a factor for each pause.
        tracer: None while traces are off.
    """

    turn_limit_s = TURN_LIMIT_S

    def __init__(
        self,
        store: WebhookStore,
        sender: WebhookSender,
        settings: WebhookSettings,
        *,
        jitter: Callable[[], float] = lambda: random.uniform(0.8, 1.2),  # noqa: S311 not a secret
        tracer: Tracer | None = None,
    ) -> None:
        self._store = store
        self._sender = sender
        self._settings = settings
        self._jitter = jitter
        self._tracer = tracer
        self._jobs: queue.SimpleQueue[TaskRecord | None] = queue.SimpleQueue()
        #: by receiver, events that are being sent; guarded by `_changed`, which is notified when one was sent
        self._in_flight: Counter[str] = Counter()
        self._changed = threading.Condition()
        self.watch = LoopWatch()

    def run(self, stopping: threading.Event) -> None:
        """Send until `stopping` is set; no error ends the loop."""
        threads = [threading.Thread(target=self._work, name="webhook", daemon=True) for _ in range(self._settings.concurrency)]
        for thread in threads:
            thread.start()
        while not stopping.is_set():
            self.watch.turn()
            try:
                if not self._dispatch():
                    self._wait(_IDLE_S)
            except ServiceUnavailable as error:
                logger.warning("webhooks: %s; retrying in %.0f s", error, _OUTAGE_S)
                stopping.wait(_OUTAGE_S)
            except Exception:
                logger.exception("webhooks: the search for due events failed")
                stopping.wait(_OUTAGE_S)
        with self._changed:
            self._changed.wait_for(lambda: not self._in_flight.total(), timeout=_DRAIN_S)
        for _ in threads:
            self._jobs.put(None)

    def _dispatch(self) -> int:
        """Hand due events to the threads; return their number. Raises ServiceUnavailable."""
        with self._changed:
            in_flight = dict(self._in_flight)
        free = self._settings.concurrency - sum(in_flight.values())
        if not free:
            return 0
        task_ids = self._store.claim_webhooks(
            lease_s=self._settings.timeout_s + _LEASE_GRACE_S,
            limit=free,
            per_receiver=self._settings.max_per_receiver,
            in_flight=in_flight,
        )
        records = self._store.get_many(task_ids) if task_ids else []
        for task_id, record in zip(task_ids, records, strict=True):
            if record is None or record.webhook is None:
                with log_context(task_id=task_id):
                    logger.error("webhooks: the record of task %s cannot be read", task_id)
                continue
            with self._changed:
                self._in_flight[record.webhook.receiver] += 1
            self._jobs.put(record)
        return len(task_ids)

    def _wait(self, timeout_s: float) -> None:
        with self._changed:
            self._changed.wait(timeout_s)

    def _work(self) -> None:
        while (record := self._jobs.get()) is not None:
            with record_context(record):
                self._try_to_send(record)

    def _try_to_send(self, record: TaskRecord) -> None:
        """Call `send`; an error is logged."""
        try:
            with self.watch.watched("the request of a webhook", TURN_LIMIT_S + self._settings.timeout_s):
                self.send(record)
        except ServiceUnavailable as error:
            logger.warning("webhooks: the attempt for task %s is not noted, and will be repeated: %s", record.task_id, error)
        except Exception:
            logger.exception("webhooks: the event of task %s cannot be sent now", record.task_id)
        finally:
            self._forget(record)

    def _forget(self, record: TaskRecord) -> None:
        if record.webhook is None:
            return
        with self._changed:
            self._in_flight[record.webhook.receiver] -= 1
            self._in_flight += Counter()  # without the receivers that have none
            self._changed.notify_all()

    def send(self, record: TaskRecord) -> None:
        """Make one attempt to deliver the event of a task that has ended, and note it. Raises ServiceUnavailable."""
        webhook = record.webhook
        if webhook is None:
            raise ValueError(f"task {record.task_id} has no webhook")
        with webhook_duration.time():
            answer = self._attempt(record, webhook)
        before = record.webhook_delivery or WebhookDelivery(WebhookState.PENDING)
        delivery = replace(
            before,
            state=_state(answer),
            attempts=before.attempts + 1,
            last_attempts=(*before.last_attempts, answer.attempt)[-_LOGGED:],
        )
        if not answer.is_delivered:
            said = answer.attempt.error or f"HTTP status {answer.attempt.status}"
            logger.warning("webhooks: attempt %d for task %s: %s", delivery.attempts, record.task_id, said)
        self._store.note_webhook(
            record.task_id,
            webhook.receiver,
            delivery,
            retry_in_s=self._retry_in_s(delivery.attempts, answer),
            pause=self._pause(answer),
        )
        webhook_deliveries.labels(_OUTCOMES[delivery.state]).inc()

    def _attempt(self, record: TaskRecord, webhook: Webhook) -> WebhookAnswer:
        """Send the event in a span, if its trace is kept."""
        send = partial(self._sender.send, webhook.url, webhook_id(record.task_id), event_body(record), owner=record.owner)
        span = self._start_span(record, webhook)
        if span is None:
            return send(trace=record.trace)
        with span:
            answer = send(trace=span.context)
            if answer.attempt.status is not None:
                span.add({"http.response.status_code": answer.attempt.status})
            if not answer.is_delivered:
                span.fail(str(answer.attempt.status or "no_answer"))
        return answer

    def _start_span(self, record: TaskRecord, webhook: Webhook) -> TraceSpan | None:
        """Start the span of an attempt, without the URL, which may contain a secret; None if its trace is not kept."""
        if self._tracer is None or not record.trace:
            return None
        attributes = {"http.request.method": "POST", "server.address": urlsplit(webhook.url).hostname or ""}
        return self._tracer.start("POST", record.trace, "client", attributes | {"inference.task.id": record.task_id})

    def _retry_in_s(self, attempts: int, answer: WebhookAnswer) -> float:
        longest_s = self._settings.max_backoff_s
        pause_s: float = min(longest_s, self._settings.backoff_s * _BACKOFF_FACTOR ** min(attempts - 1, _MAX_EXPONENT))
        return max(pause_s * self._jitter(), min(longest_s, answer.retry_after_s))

    def _pause(self, answer: WebhookAnswer) -> ReceiverPause | None:
        if not answer.is_receiver_down:
            return None
        longest_s = max(_MAX_RECEIVER_PAUSE_S, self._settings.backoff_s)
        return ReceiverPause(self._settings.backoff_s, longest_s, min(self._settings.max_backoff_s, answer.retry_after_s))


def webhook_id(task_id: str) -> str:
    """Return the id of a task's event: the same in each attempt, since a task ends once."""
    return f"msg_{task_id}"


def event_body(record: TaskRecord) -> bytes:
    """Return the event of a task that has ended, as JSON. The result is without its vector, which may be large."""
    event = {
        "type": WebhookEvent.of_status(record.status),
        "timestamp": time_text(record.finished_at_ms),
        "data": {name: value for name, value in task_object(record, with_vector=False).items() if name not in _CHANGING},
    }
    return orjson.dumps(event, option=orjson.OPT_SERIALIZE_NUMPY)


#: Outcome of an attempt by the state in which it leaves the event, as the metrics name it.
_OUTCOMES = {WebhookState.DELIVERED: "delivered", WebhookState.PENDING: "failed", WebhookState.GIVEN_UP: "given_up"}
#: Members that change after the task's end: the event is the same in each attempt.
_CHANGING = {"deliveries", "webhook", "image_stored"}


def _state(answer: WebhookAnswer) -> WebhookState:
    if answer.is_delivered:
        return WebhookState.DELIVERED
    return WebhookState.GIVEN_UP if answer.is_final else WebhookState.PENDING


def give_up_old_webhooks(store: WebhookStore, after_s: float) -> float:
    """Give up events that are too old; returns the seconds until the next call. Raises ServiceUnavailable."""
    given_up = store.give_up_webhooks(after_s=after_s, limit=_GIVE_UP_LIMIT)
    if given_up:
        webhook_deliveries.labels(_OUTCOMES[WebhookState.GIVEN_UP]).inc(len(given_up))
        log_tasks(logger, "webhooks: events of %d tasks are given up: %s", given_up, level=logging.ERROR)
    return 0.0 if len(given_up) == _GIVE_UP_LIMIT else _GIVE_UP_INTERVAL_S
