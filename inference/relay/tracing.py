"""Spans of results on their way to a sink, from the outbox to the sink's confirmation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from inference.sinks.protocol import Refusal, SinkUnavailable

if TYPE_CHECKING:
    from inference.tracing.tracer import Tracer, TraceSpan

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
