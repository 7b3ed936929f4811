"""Records and messages, so that nothing is accepted by half."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from inference.broker import Broker
from inference.errors import ServiceUnavailable
from inference.messages import BatchRequest, PredictionRequest, QueueMessage
from inference.task_store.protocol import Accepted, AcceptedBatch, Enqueue, Room, TaskStore


@dataclass(frozen=True)
class _Posting:
    """A message and where it goes."""

    queue: str
    message: QueueMessage
    priority: int


def accept(
    store: TaskStore,
    broker: Broker,
    request: PredictionRequest,
    *,
    max_queue_depth: int = 0,
    room: Room | None = None,
    on_withdrawn: Callable[[], None] = lambda: None,
) -> Accepted:
    """Write the record and queue the message: in one step where the broker is the record store, one after the other elsewhere.

    Args:
        max_queue_depth: waiting tasks that are too many for one more; 0: no limit.
        room: for how many tasks there is time; None: no limit.
        on_withdrawn: called when the message could not be published and the record is gone again. A store that breaks off in
            between may have accepted the task: then it is not called.

    Raises:
        Overloaded, IdempotencyConflict: there is neither record nor message.
        ServiceUnavailable: a server does not answer.
    """
    postings = list(_postings([request], max_items=1))
    enqueue = _prepare(broker, postings)
    message = enqueue[0] if enqueue else None
    accepted = store.accept(request, enqueue=message, max_queue_depth=max_queue_depth, room=room)
    if accepted.created and not enqueue:
        _publish(broker, postings, withdraw=lambda: store.withdraw(request.task_id), on_withdrawn=on_withdrawn)
    return accepted


def accept_batch(
    store: TaskStore,
    broker: Broker,
    batch: BatchRequest,
    *,
    max_message_items: int,
    max_queue_depth: int = 0,
    rooms: Mapping[str, Room] = MappingProxyType({}),
    on_withdrawn: Callable[[], None] = lambda: None,
) -> AcceptedBatch:
    """`accept` for many: all of them or none.

    Args:
        max_message_items: items of one message; those of a message have their model and priority in common.
        rooms: by queue, as `room` of `accept`.
    """
    postings = list(_postings(batch.tasks, max_items=max_message_items))
    enqueue = _prepare(broker, postings)
    accepted = store.accept_batch(batch, enqueue=enqueue, max_queue_depth=max_queue_depth, rooms=rooms)
    if accepted.created and not enqueue:
        _publish(broker, postings, withdraw=lambda: store.withdraw_batch(batch.batch_id), on_withdrawn=on_withdrawn)
    return accepted


def _postings(requests: Iterable[PredictionRequest], *, max_items: int) -> Iterator[_Posting]:
    def kind(request: PredictionRequest) -> tuple[int, str, str, str]:
        model = request.model
        return -request.priority, request.queue, model.version, model.digest  # who goes first is also sent first

    for _, alike in itertools.groupby(sorted(requests, key=kind), kind):
        tasks = list(alike)
        for start in range(0, len(tasks), max_items):
            items = tuple(task.item for task in tasks[start : start + max_items])
            yield _Posting(tasks[0].queue, QueueMessage(tasks[0].model, items), tasks[0].priority)


def _prepare(broker: Broker, postings: Iterable[_Posting]) -> list[Enqueue]:
    """Empty where the messages are to be published."""
    prepared = (broker.prepare(posting.queue, posting.message, posting.priority) for posting in postings)
    return [enqueue for enqueue in prepared if enqueue is not None]


def _publish(
    broker: Broker, postings: Iterable[_Posting], *, withdraw: Callable[[], bool], on_withdrawn: Callable[[], None]
) -> None:
    try:
        for posting in postings:
            broker.publish(posting.queue, posting.message, posting.priority)
    except ServiceUnavailable:
        is_withdrawn = True
        with contextlib.suppress(ServiceUnavailable):
            is_withdrawn = withdraw()
            if is_withdrawn:
                on_withdrawn()
        if is_withdrawn:
            raise
        # A worker has some of them already: it stays accepted, and the sweeper queues what got no message.
