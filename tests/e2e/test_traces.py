"""Traces of a running service, as a collector gets them: one trace from caller to sink and webhook, for every way in."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from celery import Celery
from support.celery_user import METADATA, zero
from support.collector import CollectedSpan, Collector, running_collector
from support.receiver import Reply
from support.service import Service, wait_until

from inference.runtime.redis import kombu_url
from inference.settings import load_settings

pytestmark = pytest.mark.process

TRACE_ID, CALLER_SPAN = "0af7651916cd43dd8448eb211c80319{}", "b7ad6b7169203331"
QUEUE = "predict.digits"
#: Spans of a task below `send`, with those of which they are children, and their kind and process.
TASK_SPANS = {
    f"queue {QUEUE}": ("parent", "internal", "inference-worker"),
    f"process {QUEUE}": ("parent", "consumer", "inference-worker"),
    "decode": (f"process {QUEUE}", "internal", "inference-worker"),
    "wait for a batch": (f"process {QUEUE}", "internal", "inference-worker"),
    "predict": (f"process {QUEUE}", "internal", "inference-worker"),
    "commit": (f"process {QUEUE}", "internal", "inference-worker"),
    "send jsonl": ("parent", "producer", "inference-relay"),
}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with running_collector() as running:
        yield running


@pytest.fixture(scope="module")
def traced(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that keeps the traces of callers who ask for it, and none that begin in it."""
    port = collector.receiver.port
    settings = {
        "models": ["models/digits"],
        "tracing": {"endpoint": collector.endpoint, "sample_ratio": 0, "headers": "authorization=Bearer%20secret-of-a-test"},
        "webhooks": {"secret": "whsec_" + "A" * 32, "allow_http": True, "ports": [port], "private_networks": ["127.0.0.0/8"]},
        "log": {"format": "json"},
    }
    running = Service(tmp_path_factory.mktemp("traced"), settings, variables={"OTEL_BSP_SCHEDULE_DELAY": "100"})
    try:
        running.start()
        yield running
    finally:
        running.end()


def parent(number: int, *, sampled: bool = True) -> dict[str, str]:
    """Headers of a caller's trace."""
    return {"traceparent": f"00-{TRACE_ID.format(number)}-{CALLER_SPAN}-0{int(sampled)}", "tracestate": "vendor=value"}


def trace_of(collector: Collector, number: int, *, until: dict[str, int]) -> list[CollectedSpan]:
    """The spans of a trace, once it has so many of each name."""

    def found() -> list[CollectedSpan] | None:
        spans = collector.trace(TRACE_ID.format(number))
        return spans if all(sum(span.name == name for span in spans) >= count for name, count in until.items()) else None

    spans: list[CollectedSpan] = wait_until(found, timeout_s=60, what=f"{until} in the trace {number}")
    return spans


def assert_task_spans(collector: Collector, spans: list[CollectedSpan], parent: CollectedSpan, tasks: int) -> None:
    """Each of `tasks` tasks below `parent` has its spans, and a link to a batch that has a link to it."""
    by_id = {span.span_id: span for span in spans}
    for name, (above, kind, service) in TASK_SPANS.items():
        found = [span for span in spans if span.name == name]
        assert len(found) == tasks, name
        for span in found:
            assert (span.kind, span.service, span.is_failed) == (kind, service, False), name
            assert span.end_ns >= span.start_ns
            assert by_id[span.parent_id].name == (parent.name if above == "parent" else above)
    batches = {span.span_id: span for span in collector.named(f"batch {QUEUE}")}
    for predict in (span for span in spans if span.name == "predict"):
        (link,) = predict.links
        assert predict.parent_id in batches[link].links
        assert batches[link].trace_id != predict.trace_id
        assert batches[link].attributes["inference.batch.size"] == predict.attributes["inference.batch.size"]


def test_a_synchronous_request_is_one_trace_to_sink_and_webhook(traced: Service, collector: Collector, repository: Path) -> None:
    hook = collector.receiver.url(path="/hook/secret-path")
    answer = requests.post(
        f"{traced.url}/inference",
        files={"image": (repository / "samples/digit_7.png").read_bytes()},
        data={"webhook": hook},
        headers=parent(1),
        timeout=30,
    )
    assert answer.status_code == 200
    spans = trace_of(collector, 1, until={"POST": 1, "send jsonl": 1, "POST /inference": 1, f"process {QUEUE}": 1})
    (server,) = (span for span in spans if span.name == "POST /inference")
    (send,) = (span for span in spans if span.name == f"send {QUEUE}")
    (post,) = (span for span in spans if span.name == "POST")
    assert (server.kind, server.parent_id, server.service) == ("server", CALLER_SPAN, "inference-api")
    assert server.attributes["http.response.status_code"] == 200
    assert server.attributes["http.route"] == "/inference"
    assert server.attributes["http.response.header.x-request-id"] == [answer.headers["X-Request-ID"]]
    assert (send.kind, send.parent_id) == ("producer", server.span_id)
    assert send.attributes["inference.task.id"] == answer.json()["task_id"]
    assert (post.kind, post.parent_id, post.attributes["server.address"]) == ("client", send.span_id, "127.0.0.1")
    assert_task_spans(collector, spans, send, tasks=1)
    (process,) = (span for span in spans if span.name == f"process {QUEUE}")
    assert process.attributes["inference.task.status"] == "succeeded"
    (event,) = (request for request in collector.receiver.received if request.path == "/hook/secret-path")
    assert event.headers["traceparent"].startswith(f"00-{TRACE_ID.format(1)}-{post.span_id}-")
    assert event.headers["tracestate"] == "vendor=value"


def test_tasks_of_a_batch_and_of_v2_share_the_span_of_their_acceptance(traced: Service, collector: Collector) -> None:
    files = [("image", ("a", zero()))] * 3
    metadata = '{"shape": "8,8,1", "dtype": "<f4"}'
    batch = requests.post(
        f"{traced.url}/inference/batch", files=files, data={"metadata": metadata}, headers=parent(2), timeout=30
    )
    assert batch.status_code == 200, batch.text
    tensor = {"name": "image", "shape": [2, 8, 8, 1], "datatype": "FP32", "data": [0.5] * 128}
    v2 = requests.post(f"{traced.url}/v2/models/digits/infer", json={"inputs": [tensor]}, headers=parent(3), timeout=30)
    assert v2.status_code == 200, v2.text
    for number, route, tasks in ((2, "/inference/batch", 3), (3, "/v2/models/{name}/infer", 2)):
        names = {f"POST {route}": 1, "send jsonl": tasks, f"process {QUEUE}": tasks}
        spans = trace_of(collector, number, until=names)
        (send,) = (span for span in spans if span.name == f"send {QUEUE}")
        assert send.attributes["messaging.batch.message_count"] == tasks
        assert_task_spans(collector, spans, send, tasks)


def test_a_plain_celery_message_brings_its_context_in_its_headers(traced: Service, collector: Collector) -> None:
    folder = traced.data_dir / "uploads" / "uploads" / "mine"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "zero.bin").write_bytes(zero())
    settings = load_settings(traced.config)
    with Celery(broker=kombu_url(settings)) as app:
        app.conf.broker_transport_options = {}
        for headers in (parent(4), {}):
            item = {"object": "uploads/mine/zero.bin", **METADATA}
            app.send_task("tasks.predict", kwargs={"items": [item]}, queue=QUEUE, headers=headers)
    spans = trace_of(collector, 4, until={"send jsonl": 1, f"process {QUEUE}": 1, "fetch": 1})
    (receive,) = (span for span in spans if span.name == f"receive {QUEUE}")
    assert (receive.kind, receive.parent_id) == ("consumer", CALLER_SPAN)
    assert_task_spans(collector, spans, receive, tasks=1)


def test_a_task_that_fails_marks_its_spans_and_a_refusal_does_not(traced: Service, collector: Collector) -> None:
    broken = b"\x89PNG\r\n\x1a\n" + base64.b64decode("AAAADUlIRFIAAAAIAAAACAgCAAAAS20p3A==") + bytes(40)
    answer = requests.post(f"{traced.url}/inference", files={"image": broken}, headers=parent(5), timeout=30)
    missing = requests.post(f"{traced.url}/inference", headers=parent(6), timeout=30)
    assert (answer.status_code, missing.status_code) == (400, 400), answer.text
    spans = trace_of(collector, 5, until={"POST /inference": 1})
    (refused,) = trace_of(collector, 6, until={"POST /inference": 1})
    assert (refused.is_failed, refused.attributes["inference.refusal"]) == (False, missing.json()["code"])
    for span in spans:
        assert span.is_failed == (span.name == f"process {QUEUE}"), span.name
    wait_until(lambda: f'"trace_id":"{TRACE_ID.format(6)}"' in traced.log, timeout_s=20, what="the request's line in the log")


def test_a_caller_decides_for_its_own_trace_and_the_setting_for_others(traced: Service, collector: Collector) -> None:
    """Only the traces of callers who keep them came, with `sample_ratio: 0`."""
    for headers in (parent(7, sampled=False), {}, {"traceparent": "nonsense"}):
        assert requests.post(f"{traced.url}/inference", files={"image": zero()}, headers=headers, timeout=30).status_code
        assert requests.get(f"{traced.url}/health/ready", headers=headers, timeout=30).ok
    requests.get(f"{traced.url}/models", headers=parent(8), timeout=30)
    trace_of(collector, 8, until={"GET /models": 1})  # sent after what would have come of the others
    callers = {TRACE_ID.format(number) for number in range(1, 9) if number != 7}
    assert {span.trace_id for span in collector.spans if not span.name.startswith("batch ")} <= callers


def test_requests_are_served_while_the_collector_hangs(traced: Service, collector: Collector, repository: Path) -> None:
    image, released = (repository / "samples/digit_7.png").read_bytes(), threading.Event()
    usual = collector.receiver.reply
    collector.receiver.reply = lambda _request, _handler: Reply() if released.wait(60) else None
    try:
        for _ in range(5):
            answer = requests.post(f"{traced.url}/inference", files={"image": image}, headers=parent(8), timeout=30)
            assert answer.status_code == 200
        assert not released.is_set()
    finally:
        collector.receiver.reply = usual
        released.set()


def test_the_last_spans_come_when_the_service_stops_and_no_span_has_secrets_or_images(
    traced: Service, collector: Collector
) -> None:
    requests.get(f"{traced.url}/models", headers=parent(9), timeout=30)
    traced.stop()
    assert trace_of(collector, 9, until={"GET /models": 1})
    requests_to_collector = [one for one in collector.receiver.received if one.path == "/v1/traces"]
    assert {one.headers["authorization"] for one in requests_to_collector} == {"Bearer secret-of-a-test"}
    for one in requests_to_collector:
        assert not any(secret in one.body for secret in (b"secret-", b"whsec_", zero()[:64]))
    assert "secret-of-a-test" not in traced.log
