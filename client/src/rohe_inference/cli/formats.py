"""Formats of outcomes: a table for people, JSON Lines and CSV for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from rich.console import Console
from rich.text import Text

from rohe_inference.cli.exits import problem_text
from rohe_inference.cli.outcomes import Outcome, json_line
from rohe_inference.cli.terminal import STYLES, bar, cell, percentage, printable, width_of

_MAX_NAME_CELLS = 60
_LABEL_CELLS = 26

#: Prints a line, without its end.
PrintLine = Callable[[str], None]


class OutcomeWriter(Protocol):
    """Writes outcomes one after the other, as they come."""

    def write(self, name: str, outcome: Outcome) -> None: ...


class TableWriter:
    """A line for each image: name, label, bar; below it the further classes of `top`."""

    def __init__(self, names: Sequence[str], console: Console, *, title: str = "PHOTO") -> None:
        """`names` are those of all images, for the width of their column; they are cut off on a terminal alone."""
        self._console = console
        self._title = title
        self._width = width_of([*names, title], most=_MAX_NAME_CELLS if console.is_terminal else 1000)
        self._has_head = False

    def write(self, name: str, outcome: Outcome) -> None:
        if not self._has_head:
            self._print(cell(self._title, self._width, "bold"), cell("LABEL", _LABEL_CELLS, "bold"), Text("CONFIDENCE", "bold"))
            self._has_head = True
        if outcome.result is None:
            text = f"{outcome.status}: {printable(problem_text(outcome.error or {}))}" if outcome.error else outcome.status
            self._print(self._name(name), Text(text, STYLES.get(outcome.status, "")))
            return
        for index, (label, confidence) in enumerate(classes_of(outcome.result)):
            style = "bold" if index == 0 else "dim"
            share = Text(f"{bar(confidence)} {percentage(confidence)}", "cyan" if index == 0 else "dim")
            self._print(self._name(name if index == 0 else ""), cell(label, _LABEL_CELLS, style), share)

    def _name(self, name: str) -> Text:
        return cell(name, self._width)

    def _print(self, *cells: Text) -> None:
        line = Text("  ").join(cells)
        line.rstrip()
        self._console.print(line)


class JsonLinesWriter:
    """An object in each line: `file`, then the members of a batch's item: status, task_id, model, result, error."""

    def __init__(self, print_line: PrintLine) -> None:
        self._print_line = print_line

    def write(self, name: str, outcome: Outcome) -> None:
        self._print_line(json_line({"file": name, **outcome.to_dict()}))


class SubmissionWriter:
    """The id of a task and the file in each line; `-` in place of the id if the image was refused, with the reason."""

    def __init__(self, print_line: PrintLine) -> None:
        self._print_line = print_line

    def write(self, name: str, outcome: Outcome) -> None:
        reason = f"  ({outcome.status}: {problem_text(outcome.error)})" if outcome.error else ""
        self._print_line(printable(f"{outcome.task_id or '-'}  {name}{reason}"))


class CsvWriter:
    """A row for each image, after a row of names; with `top` three columns more for each further class."""

    COLUMNS = ("file", "status", "class", "label", "confidence", "task_id", "model", "version", "error_code", "error")

    def __init__(self, print_line: PrintLine, *, top: int | None = None) -> None:
        self._print_line = print_line
        self._top = top or 1
        further = [f"{name}_{rank}" for rank in range(2, self._top + 1) for name in ("class", "label", "confidence")]
        self._write([*self.COLUMNS, *further])

    def write(self, name: str, outcome: Outcome) -> None:
        result, model, error = outcome.result or {}, outcome.model or {}, outcome.error or {}
        row = [name, outcome.status, result.get("class"), result.get("label"), result.get("confidence_level"), outcome.task_id]
        row += [model.get("name"), model.get("version"), error.get("code"), problem_text(error) if error else None]
        for entry in result.get("top", [])[1 : self._top]:
            row += [entry["class"], entry.get("label"), entry["confidence"]]
        self._write(row)

    def _write(self, row: Sequence[object]) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(row)
        self._print_line(line.getvalue().encode("utf-8", "backslashreplace").decode())  # names need not be valid Unicode


def classes_of(result: dict[str, Any]) -> list[tuple[str, float]]:
    """Return labels and confidences that a table shows: of `top`, of the labels of a multi-label model, or the one class."""
    entries = result.get("top") or result.get("labels")
    if entries:
        return [(label_of(entry), float(entry["confidence"])) for entry in entries]
    if result.get("class") is None:
        return [("no label", 0.0)]
    return [(label_of(result), float(result.get("confidence_level") or 0.0))]


def label_of(entry: dict[str, Any]) -> str:
    """Return the label; `class N` where the model has no labels."""
    return str(entry.get("label") or f"class {entry.get('class')}")
