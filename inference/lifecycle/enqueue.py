"""Records and messages, so that nothing is accepted by half."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

from inference.broker import Broker
from inference.domain import BatchRequest, QueueMessage, TaskSubmission
from inference.errors import ServiceUnavailable
from inference.task_store.protocol import Accepted, AcceptedBatch, Enqueue, Room
from inference.task_store.stores import SubmissionStore

T = TypeVar("T")

logger = logging.getLogger(__name__)

#: Seconds for which a task store that does not answer is asked again, and between two tries.
_PATIENCE_S, _PAUSE_S = 2.0, 0.2


@dataclass(frozen=True)
class _Posting:
    """A message and where it goes."""

    queue: str
    message: QueueMessage
    priority: int


def accept(
    store: SubmissionStore,
    broker: Broker,
    request: TaskSubmission,
    *,
    max_queue_depth: int = 0,
    room: Room | None = None,
) -> Accepted:
    """Write the record and queue the message: in one step where the broker is the record store, one after the other elsewhere.

    Args:
        max_queue_depth: waiting tasks that are too many for one more; 0: no limit.
        room: for how many tasks there is time; None: no limit.

    Raises:
        Overloaded, IdempotencyConflict: there is no record.
        ServiceUnavailable: there is none either, unless `may_be_accepted`.
    """
    postings = list(_postings([request], max_items=1))
    enqueue = _prepare(broker, postings)
    one = enqueue[0] if enqueue else None
    task_id = request.task_id
    accepted = _surely(lambda: store.accept(request, enqueue=one, max_queue_depth=max_queue_depth, room=room), task_id=task_id)
    if accepted.created and not enqueue:
        _publish(broker, postings, withdraw=lambda: withdraw(store, task_id))
    return accepted


def accept_batch(
    store: SubmissionStore,
    broker: Broker,
    batch: BatchRequest,
    *,
    max_message_items: int,
    max_queue_depth: int = 0,
    rooms: Mapping[str, Room] = MappingProxyType({}),
) -> AcceptedBatch:
    """`accept` for many: all of them or none.

    Args:
        max_message_items: items of one message; those of a message have their model and priority in common.
        rooms: by queue, as `room` of `accept`.
    """
    postings = list(_postings(batch.tasks, max_items=max_message_items))
    enqueue = _prepare(broker, postings)
    batch_id = batch.batch_id
    accepted = _surely(
        lambda: store.accept_batch(batch, enqueue=enqueue, max_queue_depth=max_queue_depth, rooms=rooms), batch_id=batch_id
    )
    if accepted.created and not enqueue:
        _publish(broker, postings, withdraw=lambda: withdraw_batch(store, batch_id))
    return accepted


def withdraw(store: SubmissionStore, task_id: str) -> bool:
    """Forget a task that cannot be run; False where it stays accepted. Raises ServiceUnavailable, and it `may_be_accepted`."""
    return _withdraw(lambda: store.withdraw(task_id), task_id=task_id)


def withdraw_batch(store: SubmissionStore, batch_id: str) -> bool:
    """`withdraw` for a batch and its tasks."""
    return _withdraw(lambda: store.withdraw_batch(batch_id), batch_id=batch_id)


def may_be_accepted(error: BaseException) -> bool:
    """Whether the store broke off before it said if it has a task or batch; the error names which."""
    return isinstance(error, ServiceUnavailable) and (error.task_id or error.batch_id) is not None


def _withdraw(call: Callable[[], bool], **subject: Any) -> bool:
    try:
        return _surely(call, **subject)
    except ServiceUnavailable as error:
        if not error.is_refusal:
            raise
        return False


def _surely(call: Callable[[], T], **subject: Any) -> T:
    """Make a call of the store again while its answer gets lost: the store takes it once, and answers as the first time.

    Args:
        subject: `task_id` or `batch_id`.

    Raises:
        ServiceUnavailable: there is no answer, and it `may_be_accepted`; or the answer is that it cannot be written now.
    """
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return call()
        except ServiceUnavailable as error:
            if error.is_refusal:
                raise
            if time.monotonic() + _PAUSE_S > until:
                logger.warning("whether %s was accepted is not known: %s", *subject.values(), error)
                detail = "the task store broke off before it said whether this was accepted: ask for it once it answers"
                raise ServiceUnavailable(detail, retry_after_s=error.retry_after_s, **subject) from error
        time.sleep(_PAUSE_S)


def _postings(requests: Iterable[TaskSubmission], *, max_items: int) -> Iterator[_Posting]:
    def kind(request: TaskSubmission) -> tuple[int, str]:
        return -request.priority, request.queue  # the highest priority is also sent first

    for _, alike in itertools.groupby(sorted(requests, key=kind), kind):
        tasks = list(alike)
        for start in range(0, len(tasks), max_items):
            items = tuple(task.item for task in tasks[start : start + max_items])
            yield _Posting(tasks[0].queue, QueueMessage(tasks[0].model, items), tasks[0].priority)


def _prepare(broker: Broker, postings: Iterable[_Posting]) -> list[Enqueue]:
    """Empty where the messages are to be published."""
    prepared = (broker.prepare(posting.queue, posting.message, posting.priority) for posting in postings)
    return [enqueue for enqueue in prepared if enqueue is not None]


def _publish(broker: Broker, postings: Iterable[_Posting], *, withdraw: Callable[[], bool]) -> None:
    try:
        for posting in postings:
            broker.publish(posting.queue, posting.message, posting.priority)
    except Exception:
        if withdraw():
            raise
        # A worker has some of them already: it stays accepted, and the sweeper queues what got no message.
