"""Log lines: what a stranger sent can forge none, command no terminal, and fill no disk."""

from __future__ import annotations

import base64
import io
import json
import logging
import pickle
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest

from inference.runtime.log import configure_logging, current_log_setup, formatter_for
from inference.runtime.log_context import current_log_fields, log_context
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


FIELDS = {
    "request_id": "1f0c",
    "task_id": "0197",
    "batch_id": "b-5",
    "model": "digits",
    "owner": "alice",
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
}


def test_the_fields_of_the_context_are_members_of_an_event(log: Log) -> None:
    stream = log("json")
    with log_context(**FIELDS):
        logging.getLogger("library").warning("within")
    logging.getLogger("library").warning("after")
    within, after = map(json.loads, stream.getvalue().splitlines())
    assert within == after | FIELDS | {"message": "within", "time": within["time"]}
    assert not FIELDS.keys() & after.keys()


def test_the_fields_of_the_context_end_a_line_of_text(log: Log) -> None:
    stream = log("text")
    with log_context(**FIELDS):
        logging.getLogger("library").warning("within")
        logging.getLogger("library").warning("task 0197 within")
    logging.getLogger("library").warning("after")
    within, named, after = stream.getvalue().splitlines()
    assert within.endswith(f"within [{' '.join(f'{name}={value}' for name, value in FIELDS.items())}]")
    assert "task_id" not in named, "the message has it"
    assert after.endswith("library: after")


def test_a_block_adds_to_the_fields_of_the_one_around_it() -> None:
    with log_context(task_id="1", model="digits"):
        with log_context(task_id="2", owner="", batch_id="b"):
            assert current_log_fields() == {"task_id": "2", "batch_id": "b", "model": "digits"}
        assert current_log_fields() == {"task_id": "1", "model": "digits"}
    assert current_log_fields() == {}


@pytest.mark.parametrize("strange", STRANGE, ids=ascii)
@pytest.mark.parametrize("kind", ["text", "json"])
def test_a_field_is_safe_text(log: Log, kind: Literal["text", "json"], strange: str) -> None:
    stream = log(kind)
    with log_context(request_id=f"before{strange}{FORGED}"):
        logging.getLogger("test").warning("said")
    (line,) = stream.getvalue().splitlines()
    assert line.isprintable()
    assert "forged" in line


COLOURS, TEXT, JSON = "text in colours", "text", "JSON"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "variables", "kind", "looks"),
    [
        (Terminal(), {}, "auto", COLOURS),
        (Terminal(), {"NO_COLOR": "1"}, "auto", TEXT),
        (Terminal(), {"NO_COLOR": "1", "FORCE_COLOR": "1"}, "auto", TEXT),
        (Terminal(), {"TERM": "dumb"}, "auto", TEXT),
        (Terminal(), {}, "json", JSON),
        (Terminal(), {}, "text", COLOURS),
        (io.StringIO(), {}, "auto", JSON),
        (io.StringIO(), {"FORCE_COLOR": "1"}, "auto", COLOURS),
        (io.StringIO(), {}, "text", TEXT),
        (io.StringIO(), {"FORCE_COLOR": "1"}, "json", JSON),
    ],
)
def test_a_terminal_gets_text_in_colours_and_anything_else_json(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, variables: dict[str, str], kind: Any, looks: str
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    record = logging.LogRecord("test", logging.ERROR, "", 0, "said", None, None)
    line = formatter_for(LogSettings(format=kind), stream).format(record)
    found = COLOURS if "\x1b[31mERROR" in line else JSON if line.startswith("{") else TEXT
    assert found == looks
    assert ("\x1b" in line) is (looks == COLOURS)


def test_a_module_has_a_level_of_its_own_and_so_have_those_below_it(log: Log) -> None:
    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", stream)
        configure_logging(LogSettings(level="WARNING", levels={"some.module": "DEBUG", "library": "ERROR"}), "api")
    for name in ("some.module.below", "some.other", "library.below"):
        for level in (logging.DEBUG, logging.WARNING, logging.ERROR):
            logging.getLogger(name).log(level, "said")
    said = [(event["logger"], event["level"]) for event in map(json.loads, stream.getvalue().splitlines())]
    assert said == [
        ("some.module.below", "DEBUG"),
        ("some.module.below", "WARNING"),
        ("some.module.below", "ERROR"),
        ("some.other", "WARNING"),
        ("some.other", "ERROR"),
        ("library.below", "ERROR"),
    ]
    logging.getLogger("some.module").setLevel(logging.NOTSET)
    logging.getLogger("library").setLevel(logging.NOTSET)


def test_a_child_process_logs_in_the_format_of_its_parent(monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", Terminal())
    configure_logging(LogSettings(), "worker")
    setup = pickle.loads(pickle.dumps(current_log_setup()))  # noqa: S301 as the predictor process gets it
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    setup.apply("predictor")
    logging.getLogger("test").warning("said")
    assert "\x1b[33mWARNING" in stream.getvalue()
    assert "predictor test:" in stream.getvalue()


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


KEY = "rk_aB3dE6gH9k_" + "a1B2" * 10 + "xyz" + "0123abcd"
PIXELS = bytes(range(256)) * 4


@pytest.mark.parametrize("kind", ["text", "json"])
@pytest.mark.parametrize(
    ("text", "secret", "rest"),
    [
        ("GET /bucket/a.png?X-Amz-Expires=60&X-Amz-Signature=5ecre7&x=1 200", "5ecre7", "X-Amz-Expires=60&X-Amz-Signature=*"),
        ("PUT /uploads/0197?signature=5ecre7 HTTP/1.1", "5ecre7", "PUT /uploads/0197?signature=*"),
        ("https://a.blob.example/x.png?sv=2024&sig=5ecre7%3D", "5ecre7", "sv=2024&sig=*"),
        ("{'Authorization': 'Bearer 5ecre7-5ecre7-5ecre7', 'Host': 'a'}", "5ecre7", "'Host': 'a'"),
        ("[(b'authorization', b'AWS4-HMAC-SHA256 Credential=A/5ecre7, Signature=5ecre7')]", "5ecre7", "authorization"),
        ("Authorization: Basic 5ecre7\nHost: a", "5ecre7", "Host: a"),
        ("X-API-Key: 5ecre7", "5ecre7", "X-API-Key: *"),
        (f"the key {KEY} is not valid", KEY[14:], "the key rk_aB3dE6gH9k_* is not valid".replace("*", "**********")),
        ("webhooks.secret whsec_c2VjcmV0c2VjcmV0 is", "c2VjcmV0", "whsec_********** is"),
        (f"body {base64.b64encode(PIXELS).decode()} end", "AAECAwQF", "end"),
        (f"body {PIXELS!r} end", "x02", "end"),
    ],
)
def test_a_secret_or_an_image_in_a_message_is_masked(
    log: Log, kind: Literal["text", "json"], text: str, secret: str, rest: str
) -> None:
    stream = log(kind)
    try:
        raise ValueError(text)  # noqa: TRY301 for its traceback
    except ValueError:
        logging.getLogger("library").exception("%s", text)
    said = stream.getvalue()
    assert secret not in said
    assert rest.rstrip("*") in said


@pytest.mark.parametrize(
    "text",
    ["the header Authorization, or X-API-Key, has the key", "bearer of news", "Basic authentication", "?a=1&key=2", "b'1'"],
)
def test_other_text_stays_as_it_is(log: Log, text: str) -> None:
    stream = log("text")
    logging.getLogger("library").warning("%s", text)
    assert stream.getvalue().endswith(f": {text}\n")


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
