"""The sink on a real Kafka."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import orjson
import pytest
from kafka import KafkaConsumer
from kafka.admin import KafkaAdminClient, NewTopic
from support.real_servers import NOBODY, kafka_settings
from support.result_documents import a_document
from support.samples import VECTOR
from support.tcp_proxy import kafka_proxy
from support.tenant import read_topic
from support.waiting import until

from inference.sinks.cloudevents import cloud_event
from inference.sinks.kafka import KafkaSink
from inference.sinks.protocol import SinkUnavailable, StoredResult

#: kafka-python leaves the closing of a socket that was refused to the garbage collector.
refused_sockets = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


@pytest.fixture
def sink(services_env: dict[str, str], own_name: str) -> Iterator[KafkaSink]:
    sink = KafkaSink(kafka_settings(services_env, topic=own_name, partitions=4, max_record_bytes=100_000))
    yield sink
    sink.close()


@pytest.fixture
def records(services_env: dict[str, str], own_name: str) -> Callable[[], list[Any]]:
    return partial(read_topic, services_env["KAFKA_BOOTSTRAP"], own_name)


def test_every_record_has_its_key_and_its_task(sink: KafkaSink, records: Callable[[], list[Any]]) -> None:
    names = [str(number) for number in range(50)]
    assert sink.write([a_document(name) for name in names]) == []
    found = records()
    assert [orjson.loads(record.value)["task_id"] for record in found] == names
    assert [dict(record.headers) for record in found] == [{"task_id": name.encode()} for name in names]
    assert {record.key for record in found} == {"größer".encode()}
    prediction = orjson.loads(found[0].value)["prediction"]
    assert np.array(prediction, np.float32).tobytes() == VECTOR.tobytes()


def test_a_record_has_the_trace_context_of_its_task_in_its_headers(sink: KafkaSink, records: Callable[[], list[Any]]) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    sink.write([a_document(name) for name in ("1", "2", "3")], {"1": f"{parent} vendor=a value", "2": parent})
    found = {record.headers[0][1].decode(): dict(record.headers[1:]) for record in records()}
    traceparent = {"traceparent": parent.encode()}
    assert found == {"1": traceparent | {"tracestate": b"vendor=a value"}, "2": traceparent, "3": {}}


@pytest.mark.parametrize("policy", ["compact", "delete,compact"])
def test_a_compacted_topic_gets_a_tombstone_in_the_partition_of_the_record(
    sink: KafkaSink, records: Callable[[], list[Any]], services_env: dict[str, str], own_name: str, policy: str
) -> None:
    admin = KafkaAdminClient(bootstrap_servers=services_env["KAFKA_BOOTSTRAP"])
    admin.create_topics([NewTopic(own_name, 4, 1, topic_configs={"cleanup.policy": policy})])
    admin.close()
    sink.write([a_document(name, request_id=f"request-{name}") for name in ("1", "2", "3")])
    assert sink.erase([StoredResult("1", "request-1"), StoredResult("2", "")]) == [True, False]
    found = records()
    (result,) = (record for record in found if record.value and orjson.loads(record.value)["task_id"] == "1")
    (tombstone,) = (record for record in found if record.value is None)
    assert (tombstone.key, tombstone.partition, tombstone.headers) == (result.key, result.partition, [])
    assert tombstone.offset > result.offset


def test_results_of_one_request_lie_in_one_partition(sink: KafkaSink, records: Callable[[], list[Any]]) -> None:
    sink.write([a_document(str(number), request_id=f"request-{number % 8}") for number in range(40)])
    found = {(record.key, record.partition) for record in records()}
    assert len(found) == 8


def test_the_topic_is_made_as_configured(sink: KafkaSink, services_env: dict[str, str], own_name: str) -> None:
    sink.write([a_document("task")])
    consumer = KafkaConsumer(bootstrap_servers=services_env["KAFKA_BOOTSTRAP"])
    assert consumer.partitions_for_topic(own_name) == {0, 1, 2, 3}
    consumer.close()


def test_one_that_is_too_large_is_refused_and_the_rest_is_there(sink: KafkaSink, records: Callable[[], list[Any]]) -> None:
    (refusal,) = sink.write([a_document("1"), a_document("large", label="x" * 100_000), a_document("2")])
    assert (refusal.task_id, "max_record_bytes" in refusal.reason) == ("large", True)
    assert [orjson.loads(record.value)["task_id"] for record in records()] == ["1", "2"]


def test_what_the_broker_finds_too_large_is_refused(
    services_env: dict[str, str], own_name: str, records: Callable[[], list[Any]]
) -> None:
    """The broker's limit is lower than ours: about 1 MB."""
    sink = KafkaSink(kafka_settings(services_env, topic=own_name, max_record_bytes=3_000_000))
    (refusal,) = sink.write([a_document("1"), a_document("large", label="x" * 2_000_000), a_document("2")])
    sink.close()
    assert refusal.task_id == "large"
    assert {orjson.loads(record.value)["task_id"] for record in records()} == {"1", "2"}


@refused_sockets
@pytest.mark.timeout(25)  # the client's own limit is 30 s
def test_a_server_that_is_down_is_unavailable_after_the_time_out(services_env: dict[str, str]) -> None:
    sink = KafkaSink(kafka_settings(services_env, bootstrap_servers=NOBODY, timeout_s=1))
    with pytest.raises(SinkUnavailable, match="Kafka does not answer"):
        sink.write([a_document("task")])
    sink.close()


@refused_sockets
def test_tries_while_it_is_down_leave_no_thread(services_env: dict[str, str]) -> None:
    sink = KafkaSink(kafka_settings(services_env, bootstrap_servers=NOBODY, timeout_s=0.3))
    before = threading.active_count()
    for _ in range(4):
        with pytest.raises(SinkUnavailable):
            sink.write([a_document("task")])
    assert threading.active_count() == before


@refused_sockets
def test_a_broker_that_goes_away_leaves_no_thread(services_env: dict[str, str], own_name: str) -> None:
    proxy = kafka_proxy(services_env["KAFKA_BOOTSTRAP"])
    sink = KafkaSink(kafka_settings(services_env, bootstrap_servers=proxy.address, topic=own_name, timeout_s=1))
    before = threading.active_count()
    sink.write([a_document("task")])
    proxy.cut()
    with pytest.raises(SinkUnavailable):
        sink.write([a_document("task")])
    until(lambda: threading.active_count() < before, "the end of the producer's thread")  # and of the proxy's


def test_a_record_of_an_owner_names_it(sink: KafkaSink, records: Callable[[], list[Any]]) -> None:
    sink.write([a_document("task", owner="alice")])
    (record,) = records()
    assert dict(record.headers) == {"task_id": b"task", "owner": b"alice"}
    assert orjson.loads(record.value)["owner"] == "alice"


def test_cloudevents_have_their_content_type_in_addition_to_key_and_task(
    services_env: dict[str, str], own_name: str, records: Callable[[], list[Any]]
) -> None:
    sink = KafkaSink(kafka_settings(services_env, topic=own_name, format="cloudevents"))
    document = a_document("task")
    sink.write([document])
    sink.close()
    (record,) = records()
    assert record.key == "größer".encode()
    assert dict(record.headers) == {"task_id": b"task", "content-type": b"application/cloudevents+json; charset=UTF-8"}
    assert orjson.loads(record.value) == orjson.loads(orjson.dumps(cloud_event(document), option=orjson.OPT_SERIALIZE_NUMPY))
