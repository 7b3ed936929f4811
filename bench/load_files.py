"""Files of loads: CSV, the tasks that were accepted in each second, and what recorded them.

    # photo service in production, one Monday from 12:00 UTC
    second,tasks
    0,12
    1,7

Each second from the first to the last has a line. Comments begin with `#`, before the head.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

_HEAD = ["second", "tasks"]


def read_load(path: Path) -> list[int]:
    """Return the tasks of each second.

    Raises:
        ValueError: the file has another form.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(line for line in file if not line.startswith("#")))
    seconds = [row[0] for row in rows[1:]]
    if rows[:1] != [_HEAD] or seconds != [str(number) for number in range(len(seconds))] or not seconds:
        raise ValueError(f"{path}: the head is {','.join(_HEAD)}, and a line for each second from 0 follows")
    return [int(row[1]) for row in rows[1:]]


def write_load(file: TextIO, tasks_by_second: Sequence[int], notes: Iterable[str]) -> None:
    """Write the tasks of each second, after notes about where they are from."""
    file.writelines(f"# {note}\n" for note in notes)
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_HEAD)
    writer.writerows(enumerate(tasks_by_second))
