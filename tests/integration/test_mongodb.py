"""The sink on a real server of MongoDB's protocol."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from pymongo import MongoClient
from pymongo.collection import Collection
from support.real_servers import NOBODY, mongodb_settings
from support.result_documents import a_document
from support.samples import VECTOR
from support.tcp_proxy import TcpProxy

from inference.sinks.mongodb import MongodbSink
from inference.sinks.protocol import SinkUnavailable

INFINITE = a_document("infinite", prediction=np.array([np.inf], np.float32))


@pytest.fixture
def collection(services_env: dict[str, str], own_name: str) -> Iterator[Collection[dict[str, Any]]]:
    with MongoClient[dict[str, Any]](services_env["MONGODB_URL"]) as client:
        yield client["inference-tests"][own_name]
        client["inference-tests"].drop_collection(own_name)


@pytest.fixture
def sink(services_env: dict[str, str], own_name: str) -> Iterator[MongodbSink]:
    sink = MongodbSink(mongodb_settings(services_env, database="inference-tests", collection=own_name))
    yield sink
    sink.close()


def ids(collection: Collection[dict[str, Any]]) -> list[str]:
    return sorted(document["_id"] for document in collection.find())


def test_a_document_is_there_as_the_model_gave_it(sink: MongodbSink, collection: Collection[dict[str, Any]]) -> None:
    assert sink.write([a_document("task")]) == []
    (found,) = collection.find()
    np.testing.assert_array_equal(np.array(found["prediction"], np.float32), VECTOR)  # FerretDB makes 0 of -0
    assert found["_id"] == found["task_id"] == "task"
    assert (found["request_id"], found["class"], found["label"]) == ("größer", 4, "eel")
    assert found["created_at"].replace(tzinfo=UTC) == datetime.fromtimestamp(0.001, UTC)
    assert not [key for key in found if key.endswith("_at_ms")]


def test_each_is_there_once_though_written_twice(sink: MongodbSink, collection: Collection[dict[str, Any]]) -> None:
    assert sink.write([a_document("1"), a_document("2")]) == []
    assert sink.write([a_document("2"), a_document("1"), a_document("3")]) == []
    assert ids(collection) == ["1", "2", "3"]


def test_one_that_is_too_large_is_refused_and_the_rest_is_there(
    sink: MongodbSink, collection: Collection[dict[str, Any]]
) -> None:
    too_large = a_document("large", label="x" * (16 * 2**20))
    (refusal,) = sink.write([a_document("1"), too_large, a_document("2")])
    assert refusal.task_id == "large"
    assert "bytes" in refusal.reason
    assert ids(collection) == ["1", "2"]


@pytest.mark.parametrize("others", [("1", "2"), ()])
def test_a_value_that_the_server_will_never_take_is_refused_the_second_time(
    sink: MongodbSink, collection: Collection[dict[str, Any]], others: tuple[str, ...]
) -> None:
    """FerretDB has no infinity, and fails the whole command with an internal error; MongoDB would take it."""
    with pytest.raises(SinkUnavailable, match="unsupported value") as raised:
        sink.write([INFINITE, *map(a_document, others)])
    assert (raised.value.delivered, raised.value.refusals) == (set(others), [])
    (refusal,) = sink.write([INFINITE])
    assert (refusal.task_id, "unsupported value" in refusal.reason) == ("infinite", True)
    assert ids(collection) == list(others)


def test_an_error_that_passes_refuses_nothing(
    services_env: dict[str, str], own_name: str, collection: Collection[dict[str, Any]]
) -> None:
    """The real server, but the code of its answer is changed on the way."""
    code = b"\x10code\x00"
    proxy = TcpProxy(
        urlsplit(services_env["MONGODB_URL"]).netloc,
        lambda data: data.replace(code + struct.pack("<i", 1), code + struct.pack("<i", 16_500)),
    )
    url = f"mongodb://{proxy.address}"
    sink = MongodbSink(mongodb_settings(services_env, url=url, database="inference-tests", collection=own_name))
    for number in range(3):
        with pytest.raises(SinkUnavailable) as raised:
            sink.write([INFINITE, a_document(f"{number}")])
        assert (raised.value.delivered, raised.value.refusals) == ({f"{number}"}, [])
    sink.close()
    proxy.cut()
    assert ids(collection) == ["0", "1", "2"]


def test_a_server_of_smaller_documents_refuses_what_is_over_its_limit(
    services_env: dict[str, str], own_name: str, collection: Collection[dict[str, Any]]
) -> None:
    """The real server, but what it says of its limit is changed on the way: pymongo then sends nothing larger."""
    limit = b"\x10maxBsonObjectSize\x00"
    proxy = TcpProxy(
        urlsplit(services_env["MONGODB_URL"]).netloc,
        lambda data: data.replace(limit + struct.pack("<i", 2**24), limit + struct.pack("<i", 1000)),
    )
    url = f"mongodb://{proxy.address}"
    sink = MongodbSink(mongodb_settings(services_env, url=url, database="inference-tests", collection=own_name))
    (refusal,) = sink.write([a_document("1"), a_document("large", label="x" * 1000), a_document("2")])
    sink.close()
    proxy.cut()
    assert (refusal.task_id, "at most 1000" in refusal.reason) == ("large", True)
    assert ids(collection) == ["1", "2"]


def test_results_are_found_by_request(sink: MongodbSink, collection: Collection[dict[str, Any]]) -> None:
    sink.write([a_document("task")])
    assert {"request_id_1", "created_at_1"} <= collection.index_information().keys()


def test_a_time_to_live_harms_nothing_where_there_is_none(services_env: dict[str, str], collection: Any, own_name: str) -> None:
    sink = MongodbSink(mongodb_settings(services_env, database="inference-tests", collection=own_name, ttl_days=3))
    sink.write([a_document("task", finished_at_ms=time.time() * 1000)])
    sink.close()
    assert ids(collection) == ["task"]


@pytest.mark.timeout(25)  # the client's own limit is 30 s
def test_a_server_that_is_down_is_unavailable_after_the_time_out(services_env: dict[str, str]) -> None:
    sink = MongodbSink(mongodb_settings(services_env, url=f"mongodb://{NOBODY}", timeout_s=1))
    with pytest.raises(SinkUnavailable, match="MongoDB does not answer"):
        sink.write([a_document("task")])
    sink.close()
    sink.close()
