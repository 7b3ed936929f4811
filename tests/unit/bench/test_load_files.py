"""Loads: the form of their files, and how one is recorded."""

from __future__ import annotations

import io
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from support.receiver import Received, Reply, running_receiver

from bench import record_load
from bench.autoscaling import LOAD
from bench.load_files import read_load, write_load
from bench.record_load import count_by_second

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_a_load_that_is_written_is_read(tmp_path: Path) -> None:
    text = io.StringIO()
    write_load(text, [3, 0, 2], ["a service", "of a Monday"])
    (tmp_path / "load.csv").write_text(text.getvalue(), encoding="utf-8")
    assert text.getvalue() == "# a service\n# of a Monday\nsecond,tasks\n0,3\n1,0\n2,2\n"
    assert read_load(tmp_path / "load.csv") == [3, 0, 2]


@pytest.mark.parametrize("text", ["", "1\n2\n", "second,tasks\n", "second,tasks\n0,1\n2,1\n", "tasks,second\n1,0\n"])
def test_another_form_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "load.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="second,tasks"):
        read_load(tmp_path / "load.csv")


def test_tasks_are_counted_by_second() -> None:
    times = [NOON + timedelta(seconds=seconds) for seconds in (3.9, 1.5, 1.0)]
    assert count_by_second(times) == (NOON + timedelta(seconds=1), [2, 0, 1])
    assert count_by_second(times, NOON) == (NOON, [0, 2, 0, 1])
    with pytest.raises(ValueError, match="no task"):
        count_by_second([])


def test_a_load_is_recorded_from_all_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pages = {
        "": b'{"tasks": [{"created_at": "2026-01-31T12:00:02.500Z"}], "next_cursor": "c1"}',
        "c1": b'{"tasks": [{"created_at": "2026-01-31T12:00:00.100Z"}, {"created_at": "2026-01-31T12:00:00.000Z"}]}',
    }
    asked: list[Mapping[str, list[str]]] = []
    (tmp_path / "key").write_text("secret\n", encoding="utf-8")
    with running_receiver() as receiver:

        def reply(request: Received, _handler: object) -> Reply:
            assert request.headers["Authorization"] == "Bearer secret"
            asked.append(query := parse_qs(urlsplit(request.path).query))
            return Reply(body=pages[query.get("cursor", [""])[0]])

        receiver.reply = reply
        command = [receiver.url(path=""), "--model", "digits", "--since", "2026-01-31T12:00:00Z", "--note", "by a test"]
        assert record_load.main([*command, "--key-file", str(tmp_path / "key")]) == 0
    head, note, *lines = capsys.readouterr().out.splitlines()
    assert (head, note) == ("# 3 tasks in 3 s from 2026-01-31T12:00:00Z", "# by a test")
    assert lines == ["second,tasks", "0,2", "1,0", "2,1"]
    assert {query["model"][0] for query in asked} == {"digits"}
    assert {query["since"][0] for query in asked} == {NOON.isoformat()}


def test_the_load_that_is_replayed_was_recorded() -> None:
    assert sum(read_load(LOAD)) > 1000
    assert "bench.record_load" in LOAD.read_text(encoding="utf-8")
