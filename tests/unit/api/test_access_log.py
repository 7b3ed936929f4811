"""Access log: the line of a request in each format, which requests have one, and a reader that is slow."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Literal

import gevent
import pytest

from api.security.middleware import LOGGED_FIELDS, LOGGED_ROUTE
from api.server import line_writer
from api.server.access_log import AccessLog
from api.server.line_writer import LineWriter
from inference.settings import LogSettings

TASK_ID = "0123456789abcdef0123456789abcdef"
FIELDS = {"request_id": "r1", "task_id": TASK_ID, "model": "digits", "owner": "ada"}
TOOK = timedelta(seconds=1, microseconds=2345)


class Lines(LineWriter):
    """Keeps the lines."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def write(self, line: bytes) -> None:
        self.found.append(line.decode())


@pytest.fixture(autouse=True)
def _levels() -> Iterator[None]:
    root, access = logging.getLogger(), logging.getLogger("access")
    before = root.level
    root.setLevel("INFO")
    yield
    root.setLevel(before)
    access.setLevel(logging.NOTSET)


def lines_of(
    *,
    status: int = 200,
    route: str = "/inference",
    path: str = "/inference",
    method: str = "POST",
    kind: Literal["json", "text"] = "json",
    is_on: bool = True,
    took: timedelta = TOOK,
) -> list[str]:
    writer = Lines()
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, LOGGED_ROUTE: route, LOGGED_FIELDS: FIELDS}
    AccessLog(LogSettings(format=kind, access=is_on), writer).note(status, 345, environ, took)
    return writer.found


def event_of(**request: Any) -> dict[str, Any]:
    (line,) = lines_of(**request)
    event: dict[str, Any] = json.loads(line)
    return event


def test_line_in_json() -> None:
    event = event_of()
    assert event.pop("time").endswith("+00:00")
    assert event == {
        "level": "INFO",
        "process": "api",
        "logger": "access",
        "message": "POST /inference 200",
        "method": "POST",
        "route": "/inference",
        "status": 200,
        "duration_ms": 1002.345,
        "bytes": 345,
        **FIELDS,
    }


@pytest.mark.parametrize(("took", "milliseconds"), [(timedelta(days=1, seconds=1), 86_401_000.0), (timedelta(seconds=-5), 0.0)])
def test_duration_of_a_long_stream_and_of_a_request_during_which_the_clock_was_set_back(
    took: timedelta, milliseconds: float
) -> None:
    assert event_of(took=took)["duration_ms"] == milliseconds


def test_line_in_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    (line,) = lines_of(kind="text")
    fields = " ".join(f"{name}={value}" for name, value in FIELDS.items())
    assert line.endswith(f" INFO    api access: POST /inference 200 1002.3 ms [bytes=345 {fields}]\n")


@pytest.mark.parametrize("kind", ["json", "text"])
@pytest.mark.parametrize("path", ["/a\nb", "/\u202e", '/"', "/" + "x" * 5_000, "/x?signature=5ecre7"])
def test_path_without_a_route_is_safe_text(kind: Literal["json", "text"], path: str) -> None:
    (line,) = lines_of(kind=kind, route="", path=path, status=404)
    assert line[:-1].isprintable()
    assert len(line) < 1_000
    assert "5ecre7" not in line
    if kind == "json":
        assert json.loads(line)["path"]


@pytest.mark.parametrize("route", ["/health/live", "/health/ready", "/metrics", "/v2/health/ready"])
def test_probe_is_logged_at_debug(route: str) -> None:
    assert lines_of(route=route, method="GET") == []
    logging.getLogger("access").setLevel("DEBUG")
    assert event_of(route=route, method="GET")["level"] == "DEBUG"


def test_it_can_be_switched_off_by_its_setting_and_by_its_level() -> None:
    assert lines_of(is_on=False) == []
    logging.getLogger("access").setLevel("WARNING")
    assert lines_of() == []
    assert lines_of(status=500) == []


@pytest.mark.parametrize("start", [b"", b"\x16\x03\x01\xff", b"GET", b"GET /x?signature=5ecre7 HTTP/1.1\r\nX-API-Key: 5ecre7"])
@pytest.mark.parametrize("kind", ["json", "text"])
def test_request_that_is_no_http_is_a_line(kind: Literal["json", "text"], start: bytes) -> None:
    writer = Lines()
    AccessLog(LogSettings(format=kind), writer).note_refused(400, start)
    (line,) = writer.found
    assert line[:-1].isprintable()
    assert "5ecre7" not in line
    if kind == "json":
        event = json.loads(line)
        assert (event["status"], "duration_ms" in event) == (400, False)


class TestWriter:
    @pytest.fixture
    def pipe(self) -> Iterator[tuple[int, int]]:
        reading, writing = os.pipe()
        yield reading, writing
        os.close(reading)
        os.close(writing)

    def test_lines_are_written_whole_and_in_order(self, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
        sizes: list[int] = []
        write = os.write
        monkeypatch.setattr(os, "write", lambda descriptor, data: (sizes.append(len(data)), write(descriptor, data))[1])
        lines = [b"%d %s\n" % (number, b"x" * 300) for number in range(100)]
        writer = LineWriter(pipe[1])
        for line in lines:
            writer.write(line)
        writer.flush()
        assert os.read(pipe[0], 2**16) == b"".join(lines)
        assert max(sizes) <= 4096, "other processes write to the pipe too"
        assert len(sizes) < 20

    def test_lines_that_nobody_takes_are_dropped_and_counted(
        self, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(line_writer, "_MAX_BYTES", 100)
        writer = LineWriter(pipe[1])
        for number in range(10):
            writer.write(b"%d %s\n" % (number, b"x" * 40))
        writer.flush()
        assert os.read(pipe[0], 2**16).count(b"\n") == 3
        assert caplog.messages == ["7 lines of the access log were dropped: standard error takes them too slowly"]
        writer.write(b"again\n")
        writer.flush()
        assert os.read(pipe[0], 2**16) == b"again\n"

    def test_lines_are_written_after_an_error_of_the_writing_thread(
        self, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(line_writer, "_INTERVAL_S", 0)
        writer = LineWriter(pipe[1])
        with monkeypatch.context() as failing:
            failing.setattr(line_writer, "run_blocking", lambda _call: 1 // 0)
            writer.write(b"lost\n")
            gevent.wait(timeout=10)
        writer.write(b"again\n")
        gevent.wait(timeout=10)
        assert os.read(pipe[0], 2**16) == b"again\n"
