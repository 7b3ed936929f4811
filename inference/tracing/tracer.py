"""Tracer of one process: starts spans, and sends ended ones to a collector.

Only spans of traces that are kept exist: `start` returns None for others. A trace of a caller is kept if the caller keeps it, and
`tracing.sample_ratio` of the traces that begin here. A batch has a trace of its own, which is kept if one of its items is.

Spans are sent in the background. A collector that is down or slow delays nothing: spans that find no room are dropped.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from http import HTTPStatus
from types import TracebackType
from typing import Literal, Self

from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, TraceIdRatioBased
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from opentelemetry.trace import Tracer as Starter
from opentelemetry.util.types import AttributeValue

from inference import __version__
from inference.errors import ConfigurationError, InferenceError
from inference.runtime.log_context import logged_trace_id
from inference.settings import Settings
from inference.tracing.context import active_context, is_sampled, trace_id_of
from inference.tracing.exporter import CollectorExporter
from inference.tracing.resource import resource_of

#: The library warns here of each `tracestate` that is not valid, and quotes it: any client could fill the log.
logging.getLogger("opentelemetry.trace.span").setLevel(logging.ERROR)

#: Kinds of spans, as OpenTelemetry defines them.
Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attributes = Mapping[str, AttributeValue]

#: Spans of one request to the collector, unless the variable says another number. They are encoded without a pause, in which an
#: API process serves nobody.
_EXPORT_SPANS = 128
_EXPORT_VARIABLE = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
#: Time that a process waits at its end until the last spans are sent, seconds.
_CLOSE_S = 2.0


class TraceSpan:
    """A span of a trace that is kept. Times are ns since the epoch.

    Attributes:
        context: the context that children have, in this process or in another.
    """

    def __init__(self, span: Span, tracer: Starter) -> None:
        self._span = span
        self._tracer = tracer
        self.context = _text_of(span.get_span_context())

    @property
    def link(self) -> Link:
        return Link(self._span.get_span_context())

    @cached_property
    def _parent(self) -> Context:
        return set_span_in_context(self._span, Context())

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def add(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def fail(self, code: str) -> None:
        """Mark it as failed.

        Args:
            code: `code` of the error.
        """
        self._span.set_attribute("error.type", code)
        self._span.set_status(Status(StatusCode.ERROR))

    def note_error(self, code: str, status: int) -> None:
        """Mark it as failed; a refusal, whose cause is the request, is no failure and only noted.

        Args:
            status: the HTTP status of the error.
        """
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self.fail(code)
        else:
            self._span.set_attribute("inference.refusal", code)

    def add_step(self, name: str, began_s: float, attributes: Attributes | None = None, links: Sequence[Link] = ()) -> None:
        """Add a child that began at `began_s` (`time.monotonic()`) and ends now."""
        now_ns = time.time_ns()
        start_ns = now_ns - round((time.monotonic() - began_s) * 1e9)
        step = self._tracer.start_span(name, self._parent, attributes=attributes, links=links, start_time=start_ns)
        step.end(now_ns)

    def end(self, at_ns: int | None = None) -> None:
        self._span.end(at_ns)

    def __enter__(self) -> Self:
        """Make it the active span of this thread or greenlet."""
        self._token = active_context.set(self.context)
        self._log_token = logged_trace_id.set(trace_id_of(self.context))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End it, with the error that ended the block."""
        active_context.reset(self._token)
        logged_trace_id.reset(self._log_token)
        if isinstance(error, InferenceError):
            self.note_error(error.code, error.status)
        elif error is not None:
            self.fail(type(error).__name__)
        self.end()


class Tracer:
    """Starts spans. Threads and greenlets may share it; it opens itself with the first span, since gunicorn forks before.

    Args:
        role: the process: api, worker or relay.
        exporter: default: sends to `tracing.endpoint`.
    """

    def __init__(self, settings: Settings, role: str, *, exporter: SpanExporter | None = None) -> None:
        self._settings = settings.tracing
        self._role = role
        self._exporter = exporter
        self._lock = threading.Lock()
        self._opened: tuple[BatchSpanProcessor, Starter, Starter] | None = None

    def start(
        self,
        name: str,
        parent: str = "",
        kind: Kind = "internal",
        attributes: Attributes | None = None,
        *,
        start_ns: int | None = None,
    ) -> TraceSpan | None:
        """Start a span; None if its trace is not kept.

        Args:
            parent: context of the parent; empty: a trace begins here.
        """
        if parent and not is_sampled(parent):
            return None
        _, tracer, _ = self._open()
        context = _context_of(parent) if parent else Context()
        return _recording(tracer.start_span(name, context, SpanKind[kind.upper()], attributes, start_time=start_ns), tracer)

    def start_child(self, name: str, kind: Kind = "internal") -> TraceSpan | None:
        """Start a child of the active span of this thread or greenlet; None without one."""
        parent = active_context.get()
        return self.start(name, parent, kind) if parent else None

    def start_batch(self, name: str, items: Sequence[TraceSpan], attributes: Attributes) -> TraceSpan | None:
        """Start the span of a batch, in a trace of its own, with links to the spans of its items."""
        _, _, tracer = self._open()
        links = [item.link for item in items]
        return _recording(tracer.start_span(name, Context(), SpanKind.INTERNAL, attributes, links), tracer)

    def close(self) -> None:
        """Send the spans that have ended, within two seconds; spans that end later are dropped."""
        with self._lock:
            opened = self._opened
        if opened is None:
            return
        thread = threading.Thread(target=opened[0].shutdown, name="traces", daemon=True)
        thread.start()
        thread.join(_CLOSE_S)

    def check(self) -> None:
        """Make everything that sends spans, and end it. Raises ConfigurationError: a setting or a variable `OTEL_…` is wrong."""
        try:
            processor, _, _ = self._make()
        except Exception as error:
            raise ConfigurationError(f"tracing: OpenTelemetry does not start: {error}", field="tracing") from error
        processor.shutdown()  # type: ignore[no-untyped-call]

    def _open(self) -> tuple[BatchSpanProcessor, Starter, Starter]:
        """Return the processor of ended spans, the tracer of requests and tasks, and that of batches."""
        if self._opened is None:
            with self._lock:
                self._opened = self._opened or self._make()
        return self._opened

    def _make(self) -> tuple[BatchSpanProcessor, Starter, Starter]:
        exporter = self._exporter or CollectorExporter(self._settings)
        processor = BatchSpanProcessor(exporter, max_export_batch_size=None if _EXPORT_VARIABLE in os.environ else _EXPORT_SPANS)
        resource = resource_of(self._settings, self._role)
        tracers = []
        for sampler in (ParentBased(TraceIdRatioBased(self._settings.sample_ratio)), ALWAYS_ON):
            provider = TracerProvider(sampler, resource, shutdown_on_exit=False)
            provider.add_span_processor(processor)
            tracers.append(provider.get_tracer("inference", __version__))
        return processor, tracers[0], tracers[1]


def _recording(span: Span, tracer: Starter) -> TraceSpan | None:
    return TraceSpan(span, tracer) if span.is_recording() else None


def _context_of(text: str) -> Context:
    """Return OpenTelemetry's form of a context."""
    traceparent, _, tracestate = text.partition(" ")
    _, trace_id, span_id, flags = traceparent.split("-")
    state = TraceState.from_header([tracestate]) if tracestate else None
    parent = SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)), trace_state=state
    )
    return set_span_in_context(NonRecordingSpan(parent), Context())


def _text_of(span: SpanContext) -> str:
    traceparent = f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
    return f"{traceparent} {span.trace_state.to_header()}" if span.trace_state else traceparent
