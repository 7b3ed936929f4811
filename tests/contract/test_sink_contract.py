"""What every sink does with result documents, and how the file sink fails."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from support.fakes import FakeSink
from support.samples import MODEL, QUEUE, VECTOR, a_failure, a_success, an_item
from support.small_files import run_with_small_files
from support.waiting import TIMEOUT_S, together

from inference.messages import TaskRecord, TaskStatus
from inference.settings import load_settings
from inference.sinks import ResultSink, SinkUnavailable, open_sink, result_document
from inference.sinks.jsonl import JsonlSink


class SinkWorld(NamedTuple):
    sink: ResultSink
    documents: Callable[[], list[dict[str, Any]]]
    break_it: Callable[[], None]
    mend_it: Callable[[], None]


@pytest.fixture(params=["jsonl", "fake"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> SinkWorld:
    return _jsonl_world(tmp_path) if request.param == "jsonl" else _fake_world()


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

    return SinkWorld(JsonlSink(path), partial(read_lines, path), break_it, mend_it)


def _fake_world() -> SinkWorld:
    sink = FakeSink()

    def set_failures(count: int) -> None:
        sink.failures = count

    return SinkWorld(sink, lambda: list(sink.documents), partial(set_failures, 10**9), partial(set_failures, 0))


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def a_record(task_id: str = "task", **changes: Any) -> TaskRecord:
    fields: dict[str, Any] = {
        "task_id": task_id,
        "request_id": "größer",
        "model": MODEL,
        "queue": QUEUE,
        "item": an_item(task_id),
        "status": TaskStatus.SUCCEEDED,
        "created_at_ms": 1,
        "deadline_at_ms": 4,
        "finished_at_ms": 3,
        "outcome": a_success(),
    }
    return TaskRecord(**fields | changes)


def a_document(task_id: str = "task") -> dict[str, Any]:
    return result_document(a_record(task_id), pipeline_id="pipeline")


def ids(documents: list[dict[str, Any]]) -> list[str]:
    return [document["task_id"] for document in documents]


@pytest.mark.parametrize(("threshold", "confident"), [(1.0, True), (3.402e38, False)])
def test_a_document_of_a_model_with_a_threshold_says_whether_it_is_confident(threshold: float, confident: bool) -> None:
    record = a_record("task")
    assert record.outcome is not None
    assert record.outcome.result is not None
    result = dataclasses.replace(record.outcome.result, threshold=threshold)
    changed = dataclasses.replace(record, outcome=dataclasses.replace(record.outcome, result=result))
    assert result_document(changed, pipeline_id="pipeline")["confident"] is confident


def test_a_document_says_what_the_seed_promises_and_more() -> None:
    document = a_document()
    np.testing.assert_array_equal(document.pop("prediction"), VECTOR)
    assert document.pop("confidence_level") == VECTOR[4]
    assert document == {
        "task_id": "task",
        "request_id": "größer",
        "pipeline_id": "pipeline",
        "inference_model_id": "tiny",
        "model_version": "1",
        "model_digest": "sha256:00",
        "class": 4,
        "label": "eel",
        "created_at_ms": 1,
        "finished_at_ms": 3,
    }


@pytest.mark.parametrize("outcome", [None, a_failure()])
def test_a_record_without_a_result_makes_no_document(outcome: Any) -> None:
    with pytest.raises(ValueError, match="task has no result"):
        result_document(a_record(outcome=outcome), "pipeline")


def test_documents_arrive_in_order(world: SinkWorld) -> None:
    world.sink.write([a_document(str(number)) for number in range(3)])
    world.sink.write([])
    world.sink.write([a_document("3")])
    assert ids(world.documents()) == ["0", "1", "2", "3"]


def test_values_arrive_as_the_model_gave_them(world: SinkWorld) -> None:
    world.sink.write([a_document()])
    (document,) = world.documents()
    assert np.array(document["prediction"], dtype=np.float32).tobytes() == VECTOR.tobytes()
    assert np.float32(document["confidence_level"]) == VECTOR[4]
    assert document["request_id"] == "größer"


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


def test_eight_threads_write_whole_batches(world: SinkWorld) -> None:
    batches = [[a_document(f"{writer}-{number}") for number in range(20)] for writer in range(8)]
    together([partial(world.sink.write, batch) for batch in batches])
    arrived = ids(world.documents())
    assert len(arrived) == 160
    for batch in batches:
        first = arrived.index(batch[0]["task_id"])
        assert arrived[first : first + 20] == ids(batch)


def test_closing_twice_is_fine(world: SinkWorld) -> None:
    world.sink.write([a_document()])
    world.sink.close()
    world.sink.close()
    assert ids(world.documents()) == ["task"]


class TestJsonl:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "results.jsonl"

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
        """Which may have to take half a line back."""
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
from inference.sinks import SinkUnavailable
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
        sink.write([a_document()])
        assert sink.name == "jsonl"
        assert ids(read_lines(tmp_path / "here.jsonl")) == ["task"]
