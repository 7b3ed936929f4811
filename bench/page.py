"""The generated part of docs/performance.md: what stands between its two markers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench import report, targets
from bench.report import Row

BEGIN = "<!-- from here to the end mark: written by `make bench` -->"
END = "<!-- the end of what `make bench` writes -->"


def write(file: Path, table: Sequence[Row], machine: str, pictures: Sequence[Path]) -> None:
    """Replace what is between the markers; the rest of the file stays. Raises ValueError when a marker is missing."""
    text = file.read_text(encoding="utf-8")
    file.write_text(replaced(text, generated(table, machine, [picture.name for picture in pictures])), encoding="utf-8")


def generated(table: Sequence[Row], machine: str, pictures: Sequence[str]) -> str:
    images = "".join(f"![{name}]({name})\n\n" for name in pictures)
    failures = "".join(_failure(row) for row in table if row.get("error"))
    return (
        f"Measured on: {machine}.\n\n"
        f"{failures}"
        f"### Targets\n\n{targets.as_markdown(table)}\n{images}"
        f"### All figures\n\n{report.as_markdown(table)}\n"
        f"### Start, memory and CPU by process\n\n{report.processes_as_markdown(table)}"
    )


def replaced(text: str, between: str) -> str:
    """The text with `between` between its markers. Raises ValueError when a marker is missing."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the text lacks `{BEGIN}` or `{END}`")
    return f"{head}{BEGIN}\n\n{between}\n{END}{tail}"


def _failure(row: Row) -> str:
    return f"**Failed**: {row['contender']} with {row['model']}: {row['error'].splitlines()[0].strip()}\n\n"
