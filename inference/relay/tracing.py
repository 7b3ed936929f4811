"""Spans of results on their way to a sink, from the outbox to the sink's confirmation, and of tasks that the sweeper ends."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from inference.domain import TaskRecord, TaskStatus
from inference.errors import DeadlineExceeded, PredictorDied
from inference.sinks.protocol import Refusal, SinkUnavailable

if TYPE_CHECKING:
    from inference.tracing.tracer import Attributes, Tracer, TraceSpan

#: `error.type` of a span whose result the sink refused, or did not take now.
_REFUSED, _UNAVAILABLE = "sink_refused", "sink_unavailable"


class DeliverySpans:
    """Spans of the results that are written to a sink together. Each attempt has spans of its own.

    Args:
        tracer: None while traces are off.
        contexts: contexts of the tasks that have one, by task id.
    """

    def __init__(self, tracer: Tracer | None, sink: str, contexts: Mapping[str, str]) -> None:
        self._spans: dict[str, TraceSpan] = {}
        for task_id, context in contexts.items():
            if tracer is None:
                break
            span = tracer.start(f"send {sink}", context, "producer", {"inference.sink": sink, "inference.task.id": task_id})
            if span is not None:
                self._spans[task_id] = span
        #: by task id, the context that the sink passes on: that of the span, else that of the task
        self.contexts = {**contexts, **{task_id: span.context for task_id, span in self._spans.items()}}

    def end(self, refusals: Iterable[Refusal] = (), *, failure: BaseException | None = None) -> None:
        """End the spans; those of refused results have failed, and after a `failure` those of all that were not delivered."""
        failed = dict.fromkeys((refusal.task_id for refusal in refusals), _REFUSED)
        if failure is not None:
            delivered = failure.delivered if isinstance(failure, SinkUnavailable) else frozenset()
            left = self._spans.keys() - delivered - failed.keys()
            failed |= dict.fromkeys(left, _UNAVAILABLE if isinstance(failure, SinkUnavailable) else type(failure).__name__)
        for task_id, span in self._spans.items():
            if task_id in failed:
                span.fail(failed[task_id])
            span.end()


def add_expired_span(tracer: Tracer, record: TaskRecord) -> None:
    """Add the span of a task that expired: from the start of its last attempt, or without one from its acceptance."""
    _add_end_span(tracer, record, "expire", TaskStatus.EXPIRED, DeadlineExceeded.code)


def add_dead_letter_span(tracer: Tracer, record: TaskRecord) -> None:
    """Add the span of a task that became a dead letter. The spans of its attempts died with their workers."""
    _add_end_span(tracer, record, "dead letter", TaskStatus.FAILED, PredictorDied.code)


def _add_end_span(tracer: Tracer, record: TaskRecord, name: str, status: TaskStatus, code: str) -> None:
    began_ns = min((record.started_at_ms or record.created_at_ms) * 1_000_000, time.time_ns())
    attributes: Attributes = {
        "messaging.destination.name": record.queue,
        "inference.task.id": record.task_id,
        "inference.model.name": record.model.name,
        "inference.attempt": record.attempts,
        "inference.task.status": status.value,
    }
    attributes = {**attributes, **({"inference.owner": record.owner} if record.owner else {})}
    span = tracer.start(f"{name} {record.queue}", record.trace, attributes=attributes, start_ns=began_ns)
    if span is not None:
        span.fail(code)
        span.end()
