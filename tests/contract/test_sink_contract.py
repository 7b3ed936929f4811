"""Contract of sinks for result documents, and failures of the file sink."""

from __future__ import annotations

import contextlib
import fcntl
import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pytest
from kafka import KafkaConsumer
from pymongo import MongoClient
from support.fakes import FakeSink
from support.real_servers import kafka_settings, mongodb_settings
from support.result_documents import a_document
from support.samples import VECTOR
from support.small_files import run_with_small_files
from support.tcp_proxy import TcpProxy, kafka_proxy
from support.waiting import TIMEOUT_S, together

from inference.settings import load_settings
from inference.sinks import open_sink
from inference.sinks.jsonl import JsonlSink
from inference.sinks.kafka import KafkaSink
from inference.sinks.mongodb import MongodbSink
from inference.sinks.protocol import ResultSink, SinkUnavailable, StoredResult

#: kafka-python leaves the closing of a socket that was refused to the garbage collector.
refused_sockets = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


class SinkWorld(NamedTuple):
    sink: ResultSink
    #: another sink to the same place, as another relay has it
    another: Callable[[], ResultSink]
    documents: Callable[[], list[dict[str, Any]]]
    break_it: Callable[[], None]
    mend_it: Callable[[], None]


SERVED = [pytest.param(name, marks=pytest.mark.services) for name in ("mongodb", "kafka")]


@pytest.fixture(params=["jsonl", "fake", *SERVED])
def world(request: pytest.FixtureRequest, tmp_path: Path, leave_no_sockets: None) -> Iterator[SinkWorld]:
    with contextlib.ExitStack() as stack:
        match request.param:
            case "jsonl":
                yield _jsonl_world(tmp_path)
            case "mongodb":
                yield _mongodb_world(request.getfixturevalue("services_env"), stack)
            case "kafka":
                yield _kafka_world(request.getfixturevalue("services_env"), stack)
            case _:
                yield _fake_world()


def _jsonl_world(folder: Path) -> SinkWorld:
    path, aside = folder / "results" / "results.jsonl", folder / "aside"

    def break_it() -> None:
        if path.parent.exists():
            path.parent.rename(aside)
        path.parent.write_bytes(b"a file where the folder should be")

    def mend_it() -> None:
        path.parent.unlink()
        if aside.exists():
            aside.rename(path.parent)

    return SinkWorld(JsonlSink(path), partial(JsonlSink, path), partial(read_lines, path), break_it, mend_it)


def _fake_world() -> SinkWorld:
    sink = FakeSink()

    def set_failures(count: int) -> None:
        sink.failures = count

    return SinkWorld(sink, lambda: sink, lambda: list(sink.documents), partial(set_failures, 10**9), partial(set_failures, 0))


def _mongodb_world(env: dict[str, str], stack: contextlib.ExitStack) -> SinkWorld:
    """The real server, behind a proxy that can be cut; read past it."""
    name, database = f"test-{uuid.uuid4().hex[:12]}", "inference-tests"
    proxy = TcpProxy(urlsplit(env["MONGODB_URL"]).netloc)
    stack.callback(proxy.cut)
    reader = stack.enter_context(MongoClient[dict[str, Any]](env["MONGODB_URL"]))
    stack.callback(reader[database].drop_collection, name)
    changes = {"url": f"mongodb://{proxy.address}", "database": database, "collection": name, "timeout_s": 5}

    def another() -> MongodbSink:
        sink = MongodbSink(mongodb_settings(env, **changes))
        stack.callback(sink.close)
        return sink

    return SinkWorld(another(), another, lambda: list(reader[database][name].find()), proxy.cut, proxy.mend)


def _kafka_world(env: dict[str, str], stack: contextlib.ExitStack) -> SinkWorld:
    """The real broker, behind a proxy that can be cut; read past it."""
    topic = f"test-{uuid.uuid4().hex[:12]}"
    proxy = kafka_proxy(env["KAFKA_BOOTSTRAP"])
    stack.callback(proxy.cut)

    def another() -> KafkaSink:
        sink = KafkaSink(kafka_settings(env, bootstrap_servers=proxy.address, topic=topic, partitions=1, timeout_s=5))
        stack.callback(sink.close)
        return sink

    def documents() -> list[dict[str, Any]]:
        with contextlib.closing(
            KafkaConsumer(
                topic,
                bootstrap_servers=env["KAFKA_BOOTSTRAP"],
                auto_offset_reset="earliest",
                consumer_timeout_ms=1000,
            )
        ) as consumer:
            return [json.loads(record.value) for record in consumer]

    return SinkWorld(another(), another, documents, proxy.cut, proxy.mend)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def ids(documents: list[dict[str, Any]]) -> list[str]:
    return [document["task_id"] for document in documents]


def test_documents_arrive_in_order(world: SinkWorld) -> None:
    world.sink.write([a_document(str(number)) for number in range(3)])
    world.sink.write([])
    world.sink.write([a_document("3")])
    assert ids(world.documents()) == ["0", "1", "2", "3"]


def test_values_arrive_as_the_model_gave_them(world: SinkWorld) -> None:
    world.sink.write([a_document("task")])
    (document,) = world.documents()
    np.testing.assert_array_equal(np.array(document["prediction"], np.float32), VECTOR)
    assert np.float32(document["confidence_level"]) == VECTOR[4]
    assert document["request_id"] == "größer"


def test_lists_of_classes_arrive_with_their_values(world: SinkWorld) -> None:
    top = [{"class": index, "label": None, "confidence": VECTOR[index]} for index in (4, 1)]
    world.sink.write([a_document("task") | {"top": top, "labels": []}])
    (document,) = world.documents()
    assert document["labels"] == []
    assert [np.float32(row.pop("confidence")) for row in document["top"]] == [VECTOR[4], VECTOR[1]]
    assert document["top"] == [{"class": 4, "label": None}, {"class": 1, "label": None}]


def test_what_the_code_of_a_model_returned_arrives_as_it_is(world: SinkWorld) -> None:
    custom = {"margin": 0.25, "n": 2**53 - 1, "größe": {"list": [None, True, "größer"]}, "empty": {}}
    world.sink.write([a_document("task") | {"custom": custom}])
    (document,) = world.documents()
    assert document["custom"] == custom


@refused_sockets
def test_a_sink_that_is_down_takes_nothing_and_everything_later(world: SinkWorld) -> None:
    world.sink.write([a_document("before")])
    world.break_it()
    for _ in range(2):
        with pytest.raises(SinkUnavailable):
            world.sink.write([a_document("1"), a_document("2")])
    world.mend_it()
    assert ids(world.documents()) == ["before"]
    world.sink.write([a_document("1"), a_document("2")])
    assert ids(world.documents()) == ["before", "1", "2"]


@refused_sockets
def test_a_sink_that_was_down_from_the_start_takes_everything_later(world: SinkWorld) -> None:
    world.break_it()
    with pytest.raises(SinkUnavailable):
        world.sink.write([a_document("1")])
    world.mend_it()
    world.sink.write([a_document("1")])
    assert ids(world.documents()) == ["1"]


def test_relays_that_write_at_the_same_time_lose_nothing(world: SinkWorld) -> None:
    batches = [[a_document(f"{writer}-{number}") for number in range(20)] for writer in range(3)]
    together([partial(world.another().write, batch) for batch in batches])
    arrived = ids(world.documents())
    assert len(arrived) == 60
    for writer, batch in enumerate(batches):
        assert [task_id for task_id in arrived if task_id.startswith(f"{writer}-")] == ids(batch)


def test_what_comes_again_spoils_nothing(world: SinkWorld) -> None:
    """Delivery at least once: readers drop duplicates by task id."""
    world.sink.write([a_document("1"), a_document("2")])
    assert world.sink.write([a_document("2"), a_document("3")]) == []
    assert list(dict.fromkeys(ids(world.documents()))) == ["1", "2", "3"]


@refused_sockets
def test_what_is_erased_is_gone_and_its_neighbours_stay(request: pytest.FixtureRequest, world: SinkWorld) -> None:
    world.sink.write([a_document(name) for name in ("1", "12", "2")])
    can_erase = "kafka" not in request.node.name  # its topic is not compacted
    assert world.another().erase([StoredResult("1", "größer"), StoredResult("unknown", "")]) == [can_erase] * 2
    world.sink.write([a_document("3")])
    left = [document["task_id"] for document in world.documents() if "task_id" in document]
    assert left == (["12", "2", "3"] if can_erase else ["1", "12", "2", "3"])


@refused_sockets
def test_nothing_is_erased_while_the_sink_is_down(world: SinkWorld) -> None:
    world.sink.write([a_document("1")])
    world.break_it()
    with pytest.raises(SinkUnavailable):
        world.sink.erase([StoredResult("1", "r")])
    world.mend_it()
    assert ids(world.documents()) == ["1"]


def test_closing_twice_is_fine(world: SinkWorld) -> None:
    world.sink.write([a_document("task")])
    world.sink.close()
    world.sink.close()
    assert ids(world.documents()) == ["task"]


class TestJsonl:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "results.jsonl"

    def test_an_erased_line_keeps_its_length_so_that_readers_keep_their_place(self, path: Path) -> None:
        JsonlSink(path).write([a_document(name) for name in ("1", "2", "3")])
        before = path.read_bytes().splitlines(keepends=True)
        JsonlSink(path).erase([StoredResult("2", ""), StoredResult("3", "")])
        after = path.read_bytes().splitlines(keepends=True)
        assert list(map(len, after)) == list(map(len, before))
        assert (after[0], [json.loads(line) for line in after[1:]]) == (before[0], [{"erased": True}] * 2)

    @pytest.mark.parametrize("torn", [b'{"task_id":"1","request_id":"a per', b'{"task_id":"1"}'])
    def test_a_torn_line_is_erased_too(self, path: Path, torn: bytes) -> None:
        path.write_bytes(torn)
        JsonlSink(path).write([a_document("2")])
        JsonlSink(path).erase([StoredResult("1", "")])
        erased, other = path.read_bytes().splitlines()
        assert (json.loads(erased), len(erased), json.loads(other)["task_id"]) == ({"erased": True}, len(torn), "2")

    def test_where_no_result_was_written_there_is_nothing_to_erase(self, path: Path) -> None:
        assert JsonlSink(path).erase([StoredResult("1", "")]) == [True]
        assert not path.exists()

    def test_no_bit_of_a_value_is_lost(self, path: Path) -> None:
        JsonlSink(path).write([a_document("task")])
        (document,) = read_lines(path)
        assert np.array(document["prediction"], dtype=np.float32).tobytes() == VECTOR.tobytes()

    def test_eight_threads_write_whole_batches(self, path: Path) -> None:
        batches = [[a_document(f"{writer}-{number}") for number in range(20)] for writer in range(8)]
        sink = JsonlSink(path)
        together([partial(sink.write, batch) for batch in batches])
        arrived = ids(read_lines(path))
        assert len(arrived) == 160
        for batch in batches:
            first = arrived.index(batch[0]["task_id"])
            assert arrived[first : first + 20] == ids(batch)

    def test_two_processes_write_whole_lines(self, path: Path, repository: Path) -> None:
        code = """
import sys
from pathlib import Path
from inference.sinks.jsonl import JsonlSink
sink = JsonlSink(Path(sys.argv[1]))
for number in range(50):
    sink.write([{"task_id": f"{sys.argv[2]}-{number}", "filling": "x" * 20_000}] * 2)
"""
        command = [sys.executable, "-c", code, str(path)]
        writers = [subprocess.Popen([*command, name], cwd=repository, stderr=subprocess.PIPE) for name in ("a", "b")]
        for writer in writers:
            _, complaint = writer.communicate(timeout=60)
            assert writer.returncode == 0, complaint
        arrived = ids(read_lines(path))
        for name in ("a", "b"):
            own = [task_id for task_id in arrived if task_id.startswith(name)]
            assert own == [f"{name}-{number // 2}" for number in range(100)]
        assert len(arrived) == 200

    def test_it_waits_for_another_relay_that_writes(self, path: Path) -> None:
        """The other relay may have to take half a line back."""
        path.write_bytes(b'{"task_id": "before"}\n')
        with path.open("ab", buffering=0) as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            other.write(b'{"task_id": "half')
            writer = threading.Thread(target=JsonlSink(path).write, args=([a_document("after")],))
            writer.start()
            writer.join(0.2)
            assert writer.is_alive(), "it did not wait"
            other.truncate(path.read_bytes().index(b"\n") + 1)
        writer.join(TIMEOUT_S)
        assert ids(read_lines(path)) == ["before", "after"]

    def test_a_disk_that_fills_up_keeps_no_half_line(self, tmp_path: Path, path: Path) -> None:
        code = """
import sys
from pathlib import Path
from inference.sinks.protocol import SinkUnavailable
from inference.sinks.jsonl import JsonlSink
sink = JsonlSink(Path(sys.argv[-1]) / "results.jsonl")
sink.write([{"task_id": "before"}])
try:
    sink.write([{"task_id": "fits"}, {"task_id": "does not", "filling": "x" * 10_000}])
except SinkUnavailable:
    print("refused")
sink.write([{"task_id": "after"}])
"""
        assert run_with_small_files(code, limit_bytes=5000, folder=tmp_path) == "refused\n"
        assert ids(read_lines(path)) == ["before", "after"]

    @pytest.mark.parametrize("torn", [b'{"task_id": "to', b'{"task_id": "torn"}'])
    def test_a_line_that_a_crash_tore_does_not_spoil_the_next(self, path: Path, torn: bytes) -> None:
        """A power failure, or a kill between two parts of a write, leaves a line without its end."""
        path.write_bytes(b'{"task_id": "before"}\n' + torn)
        JsonlSink(path).write([a_document("after")])
        last = path.read_bytes().splitlines()[-1]
        assert json.loads(last)["task_id"] == "after"

    def test_a_file_that_was_moved_away_is_made_again(self, path: Path) -> None:
        sink = JsonlSink(path)
        sink.write([a_document("before")])
        path.rename(path.with_suffix(".1"))
        sink.write([a_document("after")])
        assert ids(read_lines(path)) == ["after"]

    def test_a_line_break_in_a_text_stays_in_its_line(self, path: Path) -> None:
        JsonlSink(path).write([{"task_id": "two\nlines"}, {"task_id": "next"}])
        assert path.read_bytes().count(b"\n") == 2
        assert ids(read_lines(path)) == ["two\nlines", "next"]

    def test_the_settings_say_where_it_is(self, tmp_path: Path) -> None:
        settings = load_settings(None, {"data_dir": tmp_path, "jsonl": {"path": tmp_path / "here.jsonl"}})
        sink = open_sink("jsonl", settings)
        sink.write([a_document("task")])
        assert sink.name == "jsonl"
        assert ids(read_lines(tmp_path / "here.jsonl")) == ["task"]
