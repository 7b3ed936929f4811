"""A collector of OpenTelemetry: takes OTLP over HTTP, and has the spans that came in a form that tests compare."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from support.receiver import Receiver, running_receiver


@dataclass(frozen=True)
class CollectedSpan:
    """A span; ids in hexadecimal digits, times in ns since the epoch."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    #: empty for the first span of a trace
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    #: span ids that it links to
    links: tuple[str, ...]
    is_failed: bool
    #: `service.name` of the process
    service: str

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-01"


class Collector:
    """The spans that a receiver got."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver

    @property
    def endpoint(self) -> str:
        return self.receiver.url(path="")

    @property
    def spans(self) -> list[CollectedSpan]:
        return [span for request in list(self.receiver.received) if request.path == "/v1/traces" for span in _spans(request.body)]

    def trace(self, trace_id: str) -> list[CollectedSpan]:
        return [span for span in self.spans if span.trace_id == trace_id]

    def named(self, name: str, trace_id: str = "") -> list[CollectedSpan]:
        return [span for span in self.spans if span.name == name and trace_id in {"", span.trace_id}]


@contextmanager
def running_collector() -> Iterator[Collector]:
    with running_receiver() as receiver:
        yield Collector(receiver)


def _spans(body: bytes) -> Iterator[CollectedSpan]:
    for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = _plain(of_resource.resource.attributes)["service.name"]
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield CollectedSpan(
                    name=span.name,
                    kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    attributes=_plain(span.attributes),
                    links=tuple(link.span_id.hex() for link in span.links),
                    is_failed=span.status.code == Status.StatusCode.STATUS_CODE_ERROR,
                    service=service,
                )


def _plain(attributes: Any) -> dict[str, Any]:
    return {attribute.key: _value(attribute.value) for attribute in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [_value(one) for one in value.array_value.values] if kind == "array_value" else getattr(value, kind)
