"""Acceptance of tasks: record and message are written together, or neither is."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

from inference.access import NO_LIMITS, Limits
from inference.broker import Broker
from inference.domain import BatchRequest, QueueMessage, TaskSubmission
from inference.errors import ServiceUnavailable
from inference.runtime.log_context import log_context
from inference.task_store.protocol import Accepted, AcceptedBatch, Enqueue, Room
from inference.task_store.stores import SubmissionStore

T = TypeVar("T")

logger = logging.getLogger(__name__)

#: Time for which calls of a task store that does not answer are repeated, and the pause between two calls, seconds.
_PATIENCE_S, _PAUSE_S = 2.0, 0.2


@dataclass(frozen=True)
class _Posting:
    """A message, its queue, and the priority and owner of its tasks."""

    queue: str
    message: QueueMessage
    priority: int
    owner: str


def accept(
    store: SubmissionStore,
    broker: Broker,
    request: TaskSubmission,
    *,
    max_queue_depth: int = 0,
    room: Room | None = None,
    limits: Limits = NO_LIMITS,
) -> Accepted:
    """Write the record and queue the message: in one step if the broker is the task store, else one after the other.

    Args:
        max_queue_depth: number of waiting tasks at which no more are accepted; 0: no limit.
        room: number of tasks that can end in time; None: no limit.
        limits: limits of the owner.

    Raises:
        Overloaded, IdempotencyConflict, RateLimited, QuotaExceeded: no record was written.
        ServiceUnavailable: no record was written, unless `may_be_accepted` is true.
    """
    postings = list(_postings([request], max_items=1))
    enqueue = _prepare(broker, postings)
    first = enqueue[0] if enqueue else None
    task_id = request.task_id
    accepted = _call_until_answered(
        lambda: store.accept(request, enqueue=first, max_queue_depth=max_queue_depth, room=room, limits=limits), task_id=task_id
    )
    if accepted.created and not enqueue:
        _publish(broker, postings, withdraw=lambda: withdraw(store, task_id, image_bytes=request.image_bytes))
    return accepted


def accept_batch(
    store: SubmissionStore,
    broker: Broker,
    batch: BatchRequest,
    *,
    max_message_items: int,
    max_queue_depth: int = 0,
    rooms: Mapping[str, Room] = MappingProxyType({}),
    limits: Limits = NO_LIMITS,
) -> AcceptedBatch:
    """Accept all tasks of a batch request or none; errors as in `accept`.

    Args:
        max_message_items: maximum items of one message; all items of a message have the same model and priority.
        rooms: by queue, the `room` of `accept`.
        limits: limits of the owner.
    """
    postings = list(_postings(batch.tasks, max_items=max_message_items))
    enqueue = _prepare(broker, postings)
    batch_id = batch.batch_id
    accepted = _call_until_answered(
        lambda: store.accept_batch(batch, enqueue=enqueue, max_queue_depth=max_queue_depth, rooms=rooms, limits=limits),
        batch_id=batch_id,
    )
    if accepted.created and not enqueue:
        _publish(broker, postings, withdraw=lambda: withdraw_batch(store, batch))
    return accepted


def withdraw(store: SubmissionStore, task_id: str, *, image_bytes: int) -> bool:
    """Remove a task that cannot run; False if it stays accepted. Raises ServiceUnavailable; then it `may_be_accepted`."""
    return _withdraw(lambda: store.withdraw(task_id, image_bytes=image_bytes), task_id=task_id)


def withdraw_batch(store: SubmissionStore, batch: BatchRequest) -> bool:
    """Remove a batch and its tasks, as `withdraw` does for one task."""
    image_bytes = sum(task.image_bytes for task in batch.tasks)
    return _withdraw(lambda: store.withdraw_batch(batch.batch_id, image_bytes=image_bytes), batch_id=batch.batch_id)


def may_be_accepted(error: BaseException) -> bool:
    """Whether the store failed before it answered if it accepted a task or batch; the error has the id."""
    return isinstance(error, ServiceUnavailable) and (error.task_id or error.batch_id) is not None


def _withdraw(call: Callable[[], bool], **subject: Any) -> bool:
    try:
        return _call_until_answered(call, **subject)
    except ServiceUnavailable as error:
        if not error.is_refusal:
            raise
        return False


def _call_until_answered(call: Callable[[], T], **subject: Any) -> T:
    """Repeat a call of the store while its answer is lost: the store executes it once, and repeats the first answer.

    Args:
        subject: `task_id` or `batch_id`.

    Raises:
        ServiceUnavailable: no answer came, so the task `may_be_accepted`; or the store answered that it cannot write now.
    """
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return call()
        except ServiceUnavailable as error:
            if error.is_refusal:
                raise
            if time.monotonic() + _PAUSE_S > until:
                with log_context(**subject):
                    logger.warning("it is unknown whether %s was accepted: %s", *subject.values(), error)
                detail = "the task store failed before it confirmed the acceptance; query the status by this id once it answers"
                raise ServiceUnavailable(detail, retry_after_s=error.retry_after_s, **subject) from error
        time.sleep(_PAUSE_S)


def _postings(requests: Iterable[TaskSubmission], *, max_items: int) -> Iterator[_Posting]:
    def kind(request: TaskSubmission) -> tuple[int, str]:
        return -request.priority, request.queue  # the highest priority is sent first

    for _, group in itertools.groupby(sorted(requests, key=kind), kind):
        tasks = list(group)
        for start in range(0, len(tasks), max_items):
            items = tuple(task.item for task in tasks[start : start + max_items])
            yield _Posting(tasks[0].queue, QueueMessage(tasks[0].model, items), tasks[0].priority, tasks[0].owner)


def _prepare(broker: Broker, postings: Iterable[_Posting]) -> list[Enqueue]:
    """Return the messages for the store's script; empty if the broker must publish them."""
    prepared = (broker.prepare(posting.queue, posting.message, posting.priority, owner=posting.owner) for posting in postings)
    return [enqueue for enqueue in prepared if enqueue is not None]


def _publish(broker: Broker, postings: Iterable[_Posting], *, withdraw: Callable[[], bool]) -> None:
    try:
        for posting in postings:
            broker.publish(posting.queue, posting.message, posting.priority, owner=posting.owner)
    except Exception:
        if withdraw():
            raise
        # A worker already has some tasks: the batch stays accepted, and the sweeper queues the tasks without a message.
