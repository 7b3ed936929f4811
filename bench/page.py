"""Published results: the rows of the last full run in bench/results/, and the tables, plots and page made from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench import plots, report, targets
from bench.report import Row
from bench.workload import ROOT

BEGIN = "<!-- from here to the end mark: written by `make bench` -->"
END = "<!-- the end of what `make bench` writes -->"
RESULTS = ROOT / "bench" / "results"
DOCS = ROOT / "docs"
_ROWS, _MACHINE = "bench.json", "machine.txt"
_TEXTS = {
    "throughput": "Images per second by images in flight, a panel for each model",
    "latency": "Latency from p50 to p99 at 80 % of the highest rate, a panel for each model",
    "cpu": "CPU time per image, a panel for each model",
}


def save(table: Sequence[Row], machine: str, results: Path = RESULTS) -> None:
    """Write the rows of a full run, and a line that describes the machine."""
    report.write_json(table, results / _ROWS)
    (results / _MACHINE).write_text(f"{machine}\n", encoding="utf-8")


def render(results: Path = RESULTS, docs: Path = DOCS) -> list[Path]:
    """Write the full tables, the plots, and the text between the marks of docs/performance.md; returns the files.

    Raises ValueError if the page lacks a mark.
    """
    table = report.read_json(results / _ROWS)
    machine = (results / _MACHINE).read_text(encoding="utf-8").strip()
    tables, page = results / "README.md", docs / "performance.md"
    pictures = plots.draw(table, docs)
    page.write_text(replace_between_marks(page.read_text(encoding="utf-8"), summary(table, machine)), encoding="utf-8")
    tables.write_text(full_tables(table, machine), encoding="utf-8")
    return [tables, *pictures, page]


def summary(table: Sequence[Row], machine: str) -> str:
    """Create the text of docs/performance.md between its marks."""
    failures = "".join(_failure(row) for row in table if row.get("error"))
    images = "".join(f"![{text}](performance-{name}.svg)\n\n" for name, text in _TEXTS.items())
    return f"Measured on: {machine}.\n\n{failures}{images}### Targets\n\n{targets.as_markdown(table)}"


def full_tables(table: Sequence[Row], machine: str) -> str:
    """Create the text of bench/results/README.md."""
    return (
        "# Results of the last full run\n\n"
        "Written by `make bench`; the same rows for a program are in [bench.json](bench.json). The columns are explained in\n"
        "[docs/performance.md](../../docs/performance.md#columns-of-the-full-tables).\n\n"
        f"Measured on: {machine}.\n\n"
        f"## All figures\n\n{report.as_markdown(table)}\n"
        f"## Start, memory and CPU by process\n\n{report.processes_as_markdown(table)}"
    )


def replace_between_marks(text: str, between: str, begin: str = BEGIN, end: str = END) -> str:
    """Replace the text between the marks by `between`. Raises ValueError if a mark is missing."""
    head, found_begin, rest = text.partition(begin)
    _, found_end, tail = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"the text lacks `{begin}` or `{end}`")
    return f"{head}{begin}\n\n{between}\n{end}{tail}"


def _failure(row: Row) -> str:
    return f"**Failed**: {row['contender']} with {row['model']}: {row['error'].splitlines()[0].strip()}\n\n"
