"""Audit log: one line of JSON for each event, in the log and in a file, whatever a client sent."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pytest

from inference.access import ANYBODY, Caller, Role
from inference.errors import ConfigurationError
from inference.runtime.audit import AUDIT_LOGGER, COMMAND_LINE, audit, caller_identity, open_audit_file, system_identity
from inference.runtime.log import configure_logging
from inference.settings import LogSettings

STRANGE = '"\n\u202e\ud800\x1b[2J'


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    open_audit_file(None)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "logs" / "audit.jsonl"
    open_audit_file(path)
    return path


def write(target: str = "aB3dE6gH9k", **details: Any) -> None:
    audit("key.create", who=system_identity(), source=COMMAND_LINE, target=target, outcome="done", **details)


def lines(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text(encoding="ascii").splitlines()]


def test_event_says_when_who_from_where_what_and_the_outcome(file: Path) -> None:
    write(owner="ada")
    (event,) = lines(file)
    assert datetime.fromisoformat(event.pop("at")).utcoffset() is not None
    assert event.pop("who")["user"]
    assert event == {
        "from": "command line",
        "what": "key.create",
        "target": "aB3dE6gH9k",
        "outcome": "done",
        "owner": "ada",
    }


def test_identity_of_a_caller_has_no_secret() -> None:
    assert caller_identity(Caller("ada", Role.ADMIN, "aB3dE6gH9k")) == {"owner": "ada", "key_id": "aB3dE6gH9k"}
    assert caller_identity(ANYBODY) == {"owner": "", "key_id": ""}


def test_text_of_a_client_stays_one_line(file: Path) -> None:
    write(STRANGE, names=[STRANGE])
    write("x" * 100_000)
    first, second = lines(file)
    assert (first["target"], first["names"], len(second["target"])) == (STRANGE, [STRANGE], 1001)


def test_password_in_a_url_is_masked(file: Path) -> None:
    write("redis://user:hunter2@host/0", urls=["https://x.example/?token=hunter2"])
    assert "hunter2" not in file.read_text()


def test_long_list_is_cut(file: Path) -> None:
    write(task_ids=["x"] * 10_000)
    assert len(lines(file)[0]["task_ids"]) == 100


@pytest.mark.parametrize("kind", ["text", "json"])
def test_log_has_the_event_at_every_level(monkeypatch: pytest.MonkeyPatch, kind: Literal["text", "json"]) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    configure_logging(LogSettings(format=kind, level="ERROR"), "api")
    write(STRANGE)
    (line,) = stream.getvalue().splitlines()
    event = json.loads(line)["audit"] if kind == "json" else json.loads(line.partition(f"{AUDIT_LOGGER}: ")[2])
    assert (event["what"], event["target"]) == ("key.create", STRANGE)


def test_file_that_was_renamed_is_created_again(file: Path) -> None:
    write("before")
    file.rename(file.with_suffix(".old"))
    write("after")
    assert [event["target"] for event in lines(file)] == ["after"]


def test_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"security\.audit_file: cannot write to"):
        open_audit_file(tmp_path)
