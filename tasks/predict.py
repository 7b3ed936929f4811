"""Celery's side of the predict task.

Celery's pool executes nothing. The strategy passes each message to the pipeline. The pipeline's answers return to the main loop,
which runs Celery's own bookkeeping: see `tasks.consumer.request`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery import Task, signals
from celery.exceptions import InvalidTaskError
from celery.worker import state

from inference.domain import PREDICT_TASK
from inference.errors import InferenceError, ModelNotFound
from tasks.consumer.main_loop import MainLoop
from tasks.consumer.request import CeleryRequest
from tasks.pipeline.jobs import Delivery
from tasks.worker.redelivery import Redeliveries
from tasks.worker.worker import InferenceWorker

logger = logging.getLogger(__name__)


class PredictTask(Task):  # type: ignore[misc] # Celery has no types
    """Task `tasks.predict(items=[...])`, see docs/celery.md; the API sends it as an `inference.domain.QueueMessage`."""

    name = PREDICT_TASK
    Strategy = "tasks.predict:predict_strategy"
    acks_late = True
    ignore_result = True
    send_events = True

    def run(self, **_: Any) -> None:
        """Refuse a call of the task as a function."""
        raise NotImplementedError("tasks.predict cannot be called as a function: send a message to the model's queue")


def predict_strategy(task: Task, _app: Any, consumer: Any) -> Callable[..., None]:
    """Return the function that Celery calls with each predict message. Celery asks for it again on each reconnect."""
    worker: InferenceWorker = consumer.controller.inference
    main_loop: MainLoop = consumer.controller.inference_main_loop
    redeliveries: Redeliveries = consumer.controller.inference_redeliveries
    main_loop.attach(consumer)

    def handle(message: Any, body: Any, _ack: Any, _reject: Any, _callbacks: Any, **_: Any) -> None:
        request = _request(message, body, task=task, worker=worker, main_loop=main_loop, consumer=consumer)
        signals.task_received.send(sender=consumer, request=request)
        try:
            delivery = request.make_delivery()
            _check_served(worker, delivery)
        except InferenceError as error:
            logger.warning("message %s is refused: %s", request.id, error)
            request.send_received()
            request.refuse(error)
            return
        request.send_received()
        if request.eta:
            _submit_at_eta(request, delivery, worker, consumer)
            return
        state.task_reserved(request)
        redeliveries.watch(delivery)
        worker.submit(delivery)

    return handle


def _request(message: Any, body: Any, **options: Any) -> CeleryRequest:
    """Make a request of a message. Raises InvalidTaskError: the message is then put aside, and not delivered again."""
    if body is not None:
        raise InvalidTaskError("Celery's message protocol 1 is not supported; use protocol 2")
    try:
        return CeleryRequest(message, body=message.body, headers=message.headers, **options)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidTaskError(f"not a message of Celery's protocol 2: {error!r}") from error


def _check_served(worker: InferenceWorker, delivery: Delivery) -> None:
    model = delivery.message.model.name
    if not worker.serves(model):
        raise ModelNotFound(f"this worker does not serve {model}: the message is in the wrong queue")


def _submit_at_eta(request: CeleryRequest, delivery: Delivery, worker: InferenceWorker, consumer: Any) -> None:
    """Submit a message when its ETA is reached. As in Celery, until then it takes no place in the prefetch window."""

    def submit(request: CeleryRequest) -> None:
        state.task_reserved(request)
        consumer.qos.decrement_eventually()
        worker.submit(delivery)

    consumer.qos.increment_eventually()
    entry = consumer.timer.call_at(request.eta, submit, (request,))
    request._eta_timer_entry = entry  # noqa: SLF001 as Celery's strategy does
    state.task_scheduled(request)
