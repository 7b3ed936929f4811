"""The tracer: which spans there are, and how they are sent."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.client import free_port
from support.collector import Collector, running_collector
from support.receiver import Reply
from support.waiting import until

from inference.errors import ConfigurationError, InvalidImage, ServiceUnavailable
from inference.runtime.log_context import logged_trace_id
from inference.settings import load_settings
from inference.tracing.context import active_context, trace_id_of
from inference.tracing.tracer import Tracer, TraceSpan

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = f"{PARENT[:-1]}0"

MakeTracer = Callable[..., Tracer]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with running_collector() as running:
        yield running


@pytest.fixture
def make_tracer(collector: Collector) -> Iterator[MakeTracer]:
    made = []

    def make(endpoint: str = collector.endpoint, **settings: Any) -> Tracer:
        given = {"tracing": {"endpoint": endpoint, **settings}, "models": ["models/digits"]}
        made.append(Tracer(load_settings(None, given), "worker"))
        return made[-1]

    yield make
    for tracer in made:
        tracer.close()


def started(span: TraceSpan | None) -> TraceSpan:
    assert span is not None
    return span


def test_spans_arrive_with_their_parents_steps_and_links(make_tracer: MakeTracer, collector: Collector) -> None:
    tracer = make_tracer(service_name="cats", resource_attributes={"team": "vision"})
    span = started(tracer.start("process q", f"{PARENT} a=b", "consumer", {"n": 1}, start_ns=1_000_000_000))
    assert span.context.endswith(" a=b")
    batch = started(tracer.start_batch("batch q", [span], {}))
    span.add_step("decode", 0.0, {"size": 3}, [batch.link])
    span.fail("invalid_image")
    batch.end()
    span.end(2_000_000_000)
    tracer.close()
    by_name = {found.name: found for found in collector.spans}
    process, step, sent_batch = by_name["process q"], by_name["decode"], by_name["batch q"]
    assert (process.parent_id, process.kind, process.is_failed) == ("b7ad6b7169203331", "consumer", True)
    assert process.attributes == {"n": 1, "error.type": "invalid_image"}
    assert (process.start_ns, process.end_ns) == (1_000_000_000, 2_000_000_000)
    assert (step.parent_id, step.links, step.trace_id) == (process.span_id, (sent_batch.span_id,), process.trace_id)
    assert (sent_batch.parent_id, sent_batch.links) == ("", (process.span_id,))
    assert sent_batch.trace_id != process.trace_id
    assert {found.service for found in collector.spans} == {"cats"}


@pytest.mark.parametrize(("ratio", "kept"), [(0.0, 0), (1.0, 200)])
def test_the_setting_decides_for_traces_that_begin_here(make_tracer: MakeTracer, ratio: float, kept: int) -> None:
    tracer = make_tracer(sample_ratio=ratio)
    assert sum(tracer.start("a root") is not None for _ in range(200)) == kept
    assert tracer.start("a child", UNSAMPLED) is None
    item = started(tracer.start("a child", PARENT))
    assert tracer.start_batch("a batch", [item], {}) is not None


def test_the_active_span_is_the_parent_and_is_named_in_the_log(make_tracer: MakeTracer) -> None:
    tracer = make_tracer()
    assert tracer.start_child("nobody's child") is None
    with started(tracer.start("outer")) as outer:
        assert (active_context.get(), logged_trace_id.get()) == (outer.context, trace_id_of(outer.context))
        assert trace_id_of(started(tracer.start_child("inner")).context) == trace_id_of(outer.context)
    assert (active_context.get(), logged_trace_id.get()) == ("", "")


@pytest.mark.parametrize(
    ("error", "attributes", "is_failed"),
    [
        (ServiceUnavailable("down"), {"error.type": "service_unavailable"}, True),
        (InvalidImage("broken"), {"inference.refusal": "invalid_image"}, False),
        (KeyError("secret"), {"error.type": "KeyError"}, True),
    ],
)
def test_an_error_marks_the_span_and_a_refusal_only_notes_it(
    make_tracer: MakeTracer, collector: Collector, error: Exception, attributes: dict[str, str], is_failed: bool
) -> None:
    tracer = make_tracer()
    with pytest.raises(type(error)), started(tracer.start("a request")):
        raise error
    tracer.close()
    (span,) = collector.spans
    assert (span.attributes, span.is_failed) == (attributes, is_failed)


def test_a_tracestate_that_is_not_valid_is_dropped_and_not_logged(
    make_tracer: MakeTracer, caplog: pytest.LogCaptureFixture
) -> None:
    for state in ("nonsense", "a=b=c", ",".join(f"k{number}=v" for number in range(40))):
        assert len(started(make_tracer().start("a request", f"{PARENT} {state}")).context) == len(PARENT)
    assert caplog.text == ""


def test_headers_and_path_of_the_endpoint(make_tracer: MakeTracer, collector: Collector) -> None:
    for endpoint, path in ((collector.endpoint, "/v1/traces"), (collector.receiver.url(path="/otlp/mine"), "/otlp/mine")):
        tracer = make_tracer(endpoint, headers="authorization=Bearer%20secret, x-team = vision")
        started(tracer.start("a span")).end()
        tracer.close()
        request = collector.receiver.received[-1]
        assert (request.path, request.headers["Content-Type"]) == (path, "application/x-protobuf")
        assert (request.headers["authorization"], request.headers["x-team"]) == ("Bearer secret", "vision")


@pytest.mark.parametrize("headers", ["x-key=5ecre7%0A", "x-key=%205ecre7", "x-key=5ecre7%C3%A9", "x-key=5ecre7%0D%0Ax-other: 1"])
def test_a_header_that_cannot_be_sent_is_refused_at_the_start(headers: str) -> None:
    """The error of a request with it would have its value."""
    with pytest.raises(ConfigurationError) as refusal:
        load_settings(None, {"tracing": {"endpoint": "http://127.0.0.1:4318", "headers": headers}})
    assert "must be NAME=VALUE" in refusal.value.detail
    assert "5ecre7" not in refusal.value.detail


def test_a_collector_that_fails_is_reported_once_and_so_is_its_return(
    make_tracer: MakeTracer, collector: Collector, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    caplog.set_level(logging.INFO)
    status = 400
    collector.receiver.reply = lambda _request, _handler: Reply(status)
    tracer = make_tracer()

    def send() -> None:
        before = len(collector.receiver.received)
        started(tracer.start("a span")).end()
        until(lambda: len(collector.receiver.received) > before, "a request to the collector")

    send(), send(), send()  # type: ignore[func-returns-value]
    until(lambda: "does not take spans" in caplog.text, "the line in the log")
    status = 200
    send(), send()  # type: ignore[func-returns-value]
    until(lambda: "takes spans again" in caplog.text, "the second line")
    tracer.close()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"], caplog.text


def test_a_process_ends_though_its_collector_hangs(make_tracer: MakeTracer, collector: Collector) -> None:
    """The end waits for two seconds, and the collector for much longer."""
    released = threading.Event()

    def hang(_request: Any, _handler: Any) -> Reply:
        released.wait(60)
        return Reply()

    collector.receiver.reply = hang
    tracer = make_tracer()
    started(tracer.start("a span")).end()
    tracer.close()
    assert not released.is_set()
    released.set()


def test_spans_for_a_collector_that_is_down_are_dropped_and_delay_nothing(
    make_tracer: MakeTracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0.1")  # else the exporter logs its failure during another test
    tracer = make_tracer(f"http://127.0.0.1:{free_port()}")
    for _ in range(5000):  # more than are kept
        started(tracer.start("a span")).end()


def test_variables_of_opentelemetry_name_the_resource_unless_settings_do(
    make_tracer: MakeTracer, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer = make_tracer()
    started(tracer.start("ours")).end()
    tracer.close()
    monkeypatch.setenv("OTEL_SERVICE_NAME", "theirs")
    other = make_tracer()
    started(other.start("theirs")).end()
    other.close()
    assert {span.name: span.service for span in collector.spans} == {"ours": "inference-worker", "theirs": "theirs"}


def test_opentelemetrys_own_switch_turns_traces_off(make_tracer: MakeTracer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert make_tracer().start("a span", PARENT) is None
