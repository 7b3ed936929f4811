"""Log lines: what a stranger sent can forge none, command no terminal, and fill no disk."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Literal

import pytest

from inference.runtime.log import configure_logging, task_text
from inference.runtime.log_context import logged_owner, logged_request_id
from inference.settings import LogSettings

FORGED = "2026-01-31 12:00:00,000 ERROR   api inference: forged"
#: Line ends of every kind, a terminal command, a backspace, marks of direction and of no width, half a character.
STRANGE = [
    "\n",
    "\r",
    "\x0b",
    "\x0c",
    "\x85",
    "\u2028",
    "\u2029",
    "\x1b[2J",
    "\x08",
    "\u202e",
    "\u2066",
    "\u200b",
    "\ufeff",
    "\ud800",
]

Log = Callable[[Literal["text", "json"]], io.StringIO]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def start(kind: Literal["text", "json"]) -> io.StringIO:
        stream = io.StringIO()
        monkeypatch.setattr("sys.stderr", stream)
        configure_logging(LogSettings(format=kind), "api")
        return stream

    yield start
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize(("kind", "noted"), [("text", "[request 1f0c]"), ("json", '"request_id":"1f0c"')])
def test_a_line_of_a_request_has_its_id(log: Log, kind: Literal["text", "json"], noted: str) -> None:
    stream = log(kind)
    token = logged_request_id.set("1f0c")
    logging.getLogger("test").warning("within")
    logged_request_id.reset(token)
    logging.getLogger("test").warning("after")
    within, after = stream.getvalue().splitlines()
    assert noted in within
    assert "request" not in after


@pytest.mark.parametrize(("kind", "noted"), [("text", "[request 1f0c of alice]"), ("json", '"owner":"alice"')])
def test_a_line_of_a_request_has_the_owner_of_its_key(log: Log, kind: Literal["text", "json"], noted: str) -> None:
    stream = log(kind)
    token, owner_token = logged_request_id.set("1f0c"), logged_owner.set("alice")
    logging.getLogger("test").warning("within")
    logged_owner.reset(owner_token)
    logging.getLogger("test").warning("without a key")
    logged_request_id.reset(token)
    within, without = stream.getvalue().splitlines()
    assert noted in within
    assert "alice" not in without


def test_a_task_is_named_with_its_owner() -> None:
    assert [task_text("17", owner) for owner in ("alice", "")] == ["17 of alice", "17"]


@pytest.mark.parametrize("strange", STRANGE, ids=ascii)
@pytest.mark.parametrize("kind", ["text", "json"])
def test_a_message_is_one_line_of_safe_text(log: Log, kind: Literal["text", "json"], strange: str) -> None:
    stream = log(kind)
    logging.getLogger("test").warning("weights_url is %s", f"before{strange}{FORGED}")
    (line,) = stream.getvalue().splitlines()
    assert line.isprintable()
    assert "forged" in line
    assert strange not in line


@pytest.mark.parametrize("kind", ["text", "json"])
def test_an_exceptions_text_forges_no_line(log: Log, kind: Literal["text", "json"]) -> None:
    stream = log(kind)
    error = ValueError(f"no such file\n{FORGED}\x1b[2J")
    logging.getLogger("test").error("failed", exc_info=error)
    lines = stream.getvalue().split("\n")
    assert not any(line.startswith("2026-01-31") for line in lines)
    assert "\x1b" not in stream.getvalue()
    assert "no such file" in stream.getvalue()


@pytest.mark.parametrize("kind", ["text", "json"])
@pytest.mark.parametrize(
    "url",
    [
        "redis://:S3krit@host:6379/0",
        "amqp://me:S3krit@one//;amqp://me:S3krit@two//",
        "mongodb://me:p@S3krit@host/?tls=true",
        "sentinel://host/0?master=m&sentinel_password=S3krit&db=0",
        "unix:///run/redis.sock?password=S3krit",
    ],
)
def test_a_password_in_a_url_is_masked(log: Log, kind: Literal["text", "json"], url: str) -> None:
    stream = log(kind)
    try:
        raise ValueError(f"cannot use '{url}'")  # noqa: TRY301 for its traceback
    except ValueError:
        logging.getLogger("library").exception("cannot connect to %s (see http://docs/a:b?c)", url)
    said = stream.getvalue()
    assert "S3krit" not in said
    assert said.count("**********") >= 2
    assert url.partition("://")[0] + "://" in said
    assert "http://docs/a:b?c" in said


@pytest.mark.parametrize("kind", ["text", "json"])
def test_a_line_is_bounded_and_keeps_its_beginning_and_its_end(log: Log, kind: Literal["text", "json"]) -> None:
    stream = log(kind)
    logging.getLogger("test").warning("first %s last", "x" * 1_000_000)
    (line,) = stream.getvalue().splitlines()
    assert len(line) < 10_000
    assert "first" in line
    assert "last" in line


def test_an_event_in_json_is_one_object(log: Log) -> None:
    stream = log("json")
    logging.getLogger("test").warning("a \u00e9 %s", "\ud800")
    event = json.loads(stream.getvalue())
    assert (event["level"], event["process"], event["message"]) == ("WARNING", "api", "a \u00e9 \\ud800")
