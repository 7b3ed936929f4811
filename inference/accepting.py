"""Record and message, so that nothing is accepted by half."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from inference.broker import Broker
from inference.errors import ServiceUnavailable
from inference.messages import PredictionRequest, QueueMessage
from inference.task_store.protocol import Accepted, TaskStore


def accept(
    store: TaskStore,
    broker: Broker,
    request: PredictionRequest,
    *,
    max_queue_depth: int = 0,
    on_withdrawn: Callable[[], None] = lambda: None,
) -> Accepted:
    """Write the record and queue the message: in one step where the broker is the record store, one after the other elsewhere.

    Args:
        max_queue_depth: waiting tasks that are too many for one more; 0: no limit.
        on_withdrawn: called when the message could not be published and the record is gone again. A store that breaks off in
            between may have accepted the task: then it is not called.

    Raises:
        Overloaded, IdempotencyConflict: there is neither record nor message.
        ServiceUnavailable: a server does not answer.
    """
    message = QueueMessage(request.model, (request.item,))
    enqueue = broker.prepare(request.queue, message, request.priority)
    accepted = store.accept(request, enqueue=enqueue, max_queue_depth=max_queue_depth)
    if accepted.created and enqueue is None:
        try:
            broker.publish(request.queue, message, request.priority)
        except ServiceUnavailable:
            with contextlib.suppress(ServiceUnavailable):
                store.withdraw(request.task_id)
                on_withdrawn()
            raise
    return accepted
