"""Spans of tasks in the worker, with the durations that the stages measure.

    send QUEUE (API) ─┬─ queue QUEUE     from the acceptance to the lease
                      └─ process QUEUE   from the lease to the commit
                           ├─ fetch, decode, wait for a batch
                           ├─ predict    with a link to the batch
                           └─ commit
    batch QUEUE       a trace of its own, with a link to the span `process` of each item

A job of a task whose trace is not kept has no span, and costs one test at each of these places.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from inference.errors import InferenceError
from inference.tracing.context import read_context
from tasks.pipeline.jobs import Job

if TYPE_CHECKING:
    from inference.task_store.protocol import Lease
    from inference.tracing.tracer import Attributes, Tracer, TraceSpan


@contextmanager
def received(tracer: Tracer | None, queue: str, headers: Mapping[str, Any]) -> Iterator[str]:
    """Read a plain Celery client's message in the span `receive QUEUE`, and yield the context for its tasks.

    Args:
        headers: of the message; `traceparent` and `tracestate` are its sender's context.
    """
    sent = read_context(headers.get("traceparent"), headers.get("tracestate"))
    span = None if tracer is None else tracer.start(f"receive {queue}", sent, "consumer")
    if span is None:
        yield sent
    else:
        with span:
            span.add({"messaging.operation.type": "receive", "messaging.destination.name": queue})
            yield span.context


def start_task_span(tracer: Tracer, queue: str, task_id: str, lease: Lease, now_ms: int) -> TraceSpan | None:
    """Start the span of a task that is leased now, and add that of its time in the queue; None if its trace is not kept.

    Args:
        now_ms: time of the store's clock, on which the lease's times are.
    """
    now_ns = time.time_ns()
    attributes = {"messaging.destination.name": queue, "inference.task.id": task_id}
    accepted_ns = now_ns - max(0, now_ms - lease.created_at_ms) * 1_000_000
    waiting = tracer.start(f"queue {queue}", lease.trace, attributes=attributes, start_ns=accepted_ns)
    if waiting is not None:
        waiting.end(now_ns)
    attributes |= {"messaging.operation.type": "process"} | ({"inference.owner": lease.owner} if lease.owner else {})
    return tracer.start(f"process {queue}", lease.trace, "consumer", attributes, start_ns=now_ns)


class BatchSpan:
    """Span of a batch while the predictor runs it; at its end, each traced item gets the step `predict` with a link to it."""

    def __init__(self, tracer: Tracer, queue: str, jobs: Sequence[Job]) -> None:
        self._items = [job.span for job in jobs if job.span is not None]
        for job in jobs:
            if job.span is not None:
                job.span.add_step("wait for a batch", job.ready_at)
        self._attributes: Attributes = {"inference.batch.size": len(jobs)}
        attributes: Attributes = {**self._attributes, "messaging.destination.name": queue}
        self._span = tracer.start_batch(f"batch {queue}", self._items, attributes) if self._items else None

    def __enter__(self) -> Self:
        self._began_s = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._span is None:
            return
        if error is not None:
            self._span.fail(error.code if isinstance(error, InferenceError) else type(error).__name__)
        self._span.end()
        for item in self._items:
            item.add_step("predict", self._began_s, self._attributes, [self._span.link])
