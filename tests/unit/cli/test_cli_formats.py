"""Formats of outcomes: table, JSON Lines, CSV, lines of `submit`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable

import pytest
from rich.console import Console
from rohe_inference.cli.formats import CsvWriter, JsonLinesWriter, SubmissionWriter, TableWriter
from rohe_inference.cli.outcomes import Outcome
from rohe_inference.cli.terminal import bar, table

MODEL = {"name": "flowers", "version": "1", "digest": "sha256:0"}
TOP = [{"class": 4, "label": "rose", "confidence": 0.75}, {"class": 1, "label": "tulip", "confidence": 0.125}]
ROSE = Outcome("succeeded", "t1", MODEL, {"class": 4, "label": "rose", "confidence_level": 0.75, "top": TOP})
PLAIN = Outcome("succeeded", "t2", MODEL, {"class": 7, "label": None, "confidence_level": 1.0})
BAD = Outcome("refused", error={"code": "invalid_image", "detail": "It is no image.", "field": "image", "expected": "a PNG"})


@pytest.fixture
def lines() -> list[str]:
    return []


def table_of(rows: dict[str, Outcome], *, is_terminal: bool = False, no_color: bool = False) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=is_terminal, no_color=no_color, width=200, soft_wrap=True, highlight=False)
    writer = TableWriter(list(rows), console)
    for name, outcome in rows.items():
        writer.write(name, outcome)
    return file.getvalue()


def test_table_has_label_bar_and_percentage() -> None:
    assert table_of({"a.jpg": ROSE, "long/b.jpg": PLAIN, "c.jpg": BAD}).splitlines() == [
        "PHOTO       LABEL                       CONFIDENCE",
        "a.jpg       rose                        ███████▌    75.0 %",
        "            tulip                       █▎          12.5 %",
        "long/b.jpg  class 7                     ██████████ 100.0 %",
        "c.jpg       refused: It is no image; expected: a PNG",
    ]


def test_colours_are_for_terminals_alone() -> None:
    assert "\x1b[" in table_of({"a.jpg": ROSE}, is_terminal=True)
    assert "\x1b[3" not in table_of({"a.jpg": ROSE}, is_terminal=True, no_color=True)
    assert "\x1b" not in table_of({"a.jpg": ROSE})


@pytest.mark.parametrize("evil", ["\x1b]0;title\x07", "\x1b[2J", "a\nb", "\u202egpj", "\udcff"])
def test_names_and_labels_cannot_control_the_terminal(evil: str) -> None:
    text = table_of({f"{evil}.jpg": Outcome("succeeded", "t", MODEL, {"class": 0, "label": evil, "confidence_level": 0.5})})

    assert len(text.splitlines()) == 2
    assert not set(text) & set("\x1b\x07\u202e\udcff")


def test_json_lines_have_the_same_members_always(lines: list[str]) -> None:
    writer = JsonLinesWriter(lines.append)
    for name, outcome in {"a.jpg": ROSE, "ü.jpg": BAD, "not-unicode-\udcff.jpg": PLAIN}.items():
        writer.write(name, outcome)

    documents = [json.loads(line.encode()) for line in lines]
    assert [list(document) for document in documents] == [["file", "status", "task_id", "model", "result", "error"]] * 3
    assert documents[0] == {
        "file": "a.jpg",
        "status": "succeeded",
        "task_id": "t1",
        "model": MODEL,
        "result": ROSE.result,
        "error": None,
    }
    assert documents[1]["error"]["code"] == "invalid_image"
    assert "ü.jpg" in lines[1]
    assert documents[2]["file"] == "not-unicode-\udcff.jpg"


def test_csv_can_be_read_back(lines: list[str]) -> None:
    writer = CsvWriter(lines.append, top=2)
    for name, outcome in {'a, "b".jpg': ROSE, "c.jpg": PLAIN, "d.jpg": BAD}.items():
        writer.write(name, outcome)

    rows = list(csv.DictReader(lines))
    assert [row["file"] for row in rows] == ['a, "b".jpg', "c.jpg", "d.jpg"]
    assert [row["label"] for row in rows] == ["rose", "", ""]
    assert (rows[0]["confidence"], rows[0]["label_2"], rows[0]["confidence_2"]) == ("0.75", "tulip", "0.125")
    assert (rows[2]["status"], rows[2]["error_code"]) == ("refused", "invalid_image")


def test_submissions_are_an_id_and_a_file(lines: list[str]) -> None:
    writer = SubmissionWriter(lines.append)
    writer.write("a b.jpg", Outcome("queued", "t1", MODEL))
    writer.write("c.jpg", BAD)

    assert lines == ["t1  a b.jpg", "-  c.jpg  (refused: It is no image; expected: a PNG)"]


@pytest.mark.parametrize(("share", "shown"), [(0, " " * 10), (0.5, "█████     "), (1, "█" * 10), (7, "█" * 10), (-1, " " * 10)])
def test_bar_has_ten_cells(share: float, shown: str) -> None:
    assert bar(share) == shown


def test_columns_of_a_table_are_aligned_to_wide_characters(capsys: pytest.CaptureFixture[str]) -> None:
    assert [line.plain for line in table(("A", "B"), [("猫", "1"), ("abc", "22")])] == ["A    B", "猫   1", "abc  22"]


def test_empty_table_is_its_head() -> None:
    assert [line.plain for line in table(("A", "B"), [])] == ["A  B"]


def test_writers_print_as_they_go(lines: list[str]) -> None:
    makers: list[Callable[[], JsonLinesWriter | CsvWriter | SubmissionWriter]] = [
        lambda: JsonLinesWriter(lines.append),
        lambda: CsvWriter(lines.append),
        lambda: SubmissionWriter(lines.append),
    ]
    for make in makers:
        writer = make()
        before = len(lines)
        writer.write("a.jpg", ROSE)
        assert len(lines) == before + 1
