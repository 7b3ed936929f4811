"""A result as a CloudEvent, read by the CloudEvents project's own library."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka_event
from support.result_documents import a_document

from inference.sinks.cloudevents import CONTENT_TYPE, cloud_event


def read(document: dict[str, Any]) -> Any:
    """The event as a reader of the Kafka topic gets it; the library refuses what the specification forbids."""
    value = orjson.dumps(cloud_event(document), option=orjson.OPT_SERIALIZE_NUMPY)
    return from_kafka_event(KafkaMessage({"content-type": CONTENT_TYPE.encode()}, key=None, value=value))


def test_the_attributes_say_which_result_it_is() -> None:
    attributes = read(a_document("task", pipeline_id="line", finished_at_ms=1_700_000_000_123)).get_attributes()
    assert attributes == {
        "specversion": "1.0",
        "id": "task",
        "source": "/pipelines/line",
        "type": "rohe.inference.result",
        "time": datetime(2023, 11, 14, 22, 13, 20, 123_000, tzinfo=UTC),
        "subject": "größer",
        "datacontenttype": "application/json",
    }


def test_an_owner_is_an_extension_attribute() -> None:
    event = read(a_document("task", owner="alice@example.org"))
    assert event.get_extension("owner") == event.get_data()["owner"] == "alice@example.org"


def test_the_data_is_the_document_as_without_an_envelope() -> None:
    document = a_document("task")
    assert read(document).get_data() == orjson.loads(orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY))


@pytest.mark.parametrize(
    ("pipeline_id", "source"), [("two words/é", "/pipelines/two%20words%2F%C3%A9"), ("a:b", "/pipelines/a%3Ab")]
)
def test_a_pipeline_of_any_letters_is_a_reference(pipeline_id: str, source: str) -> None:
    assert read(a_document("task", pipeline_id=pipeline_id)).get_source() == source


def test_the_time_is_utc_to_the_millisecond() -> None:
    assert cloud_event(a_document("task", finished_at_ms=1_700_000_000_000))["time"] == "2023-11-14T22:13:20.000Z"


def test_the_trace_context_is_in_the_extension_attributes_of_distributed_tracing() -> None:
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "vendor=value"}
    event = cloud_event(a_document("task"), trace)
    assert {name: event[name] for name in trace} == trace
    assert "traceparent" not in cloud_event(a_document("task"))
