"""Ids of tasks that a user names, or pipes in."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence

import click

from rohe_inference.cli.photos import STDIN


def named_tasks(arguments: Sequence[str]) -> dict[str, str]:
    """Return a name to show for each task id: the file if the id came in a line of `submit`, else the id.

    Raises:
        click.UsageError: there is no id.
    """
    names: dict[str, str] = {}
    for argument in arguments:
        if argument == STDIN:
            names |= dict(_of_lines(map(os.fsdecode, sys.stdin.buffer)))
        else:
            names[argument] = argument
    if not names:
        raise click.UsageError("name one task at least, or - for the lines that `submit` prints")
    return names


def _of_lines(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield id and name of each line: JSON with `task_id` and perhaps `file`, or the id, perhaps followed by a file."""
    for number, line in enumerate(map(str.strip, lines), 1):
        if line.startswith("{"):
            try:
                document = json.loads(line)
                task_id, name = document["task_id"], document.get("file")
            except (ValueError, KeyError) as error:
                raise click.UsageError(f"line {number} of stdin has no task_id: {line[:80]}") from error
        else:
            task_id, _, name = line.partition(" ")
        if task_id and task_id != "-":  # the image was refused: it has no task
            yield task_id, (name or task_id).strip()
