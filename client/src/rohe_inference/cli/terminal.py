"""Output to terminals and pipes: colours, columns, bars; plain text when the output is no terminal or NO_COLOR is set."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import NoReturn

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_BAR_CELLS = 10
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))

STYLES = {
    "succeeded": "green",
    "queued": "yellow",
    "running": "cyan",
    "failed": "red",
    "refused": "red",
    "unreadable": "red",
    "expired": "magenta",
    "canceled": "magenta",
}


class _Console(Console):
    """A console that leaves a closed pipe to the caller; rich would exit with 1."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


def console(*, stderr: bool = False) -> Console:
    """Return a console for stdout or stderr. Lines are never wrapped."""
    return _Console(file=sys.stderr if stderr else sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=True)


def printable(text: str) -> str:
    """Return text of others (file names, labels, messages) with escapes in place of characters that a terminal would obey."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode() for char in text)


def bar(share: float) -> str:
    """Return a bar of 10 cells for a share of 0 to 1; of `#` where the output cannot show blocks."""
    eighths = round(max(0.0, min(1.0, share)) * _BAR_CELLS * 8)
    full, rest = divmod(eighths, 8)
    text = (_EIGHTHS[8] * full + (_EIGHTHS[rest] if rest else "")).ljust(_BAR_CELLS)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return ("#" * round(eighths / 8)).ljust(_BAR_CELLS)
    return text


def percentage(share: float) -> str:
    return f"{share * 100:5.1f} %"


def age(seconds: float) -> str:
    """Return an age in the largest unit of which it has at least two: 90 s, 3 min, 47 h; '-' for none."""
    if seconds <= 0:
        return "-"
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= 2 * size), _UNITS[-1])
    return f"{seconds // size:.0f} {unit}"


def age_since(timestamp: str | None) -> str:
    """Return the age of a time as the service writes it (RFC 3339)."""
    if not timestamp:
        return "-"
    then = datetime.fromisoformat(timestamp.replace("Z", "+00:00"))
    return age(max(1.0, (datetime.now(timezone.utc) - then).total_seconds()))


def cell(text: str, width: int, style: str = "") -> Text:
    """Return text in exactly `width` cells, the end cut off."""
    return Text(set_cell_size(printable(text), width), style=style)


def width_of(texts: Iterable[str], *, most: int) -> int:
    """Return the number of cells of the widest text, at most `most`."""
    return min(most, max((cell_len(printable(text)) for text in texts), default=0))


def table(head: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> list[Text]:
    """Return lines with aligned columns, the head first; every column as wide as its widest cell."""
    cells = [[Text(title, style="bold") for title in head]]
    cells += [[value if isinstance(value, Text) else Text(printable(value)) for value in row] for row in rows]
    widths = [max(value.cell_len for value in column) for column in zip(*cells, strict=True)] if rows else [len(t) for t in head]
    lines = []
    for row in cells:
        line = Text()
        for value, width in zip(row, widths, strict=True):
            line.append_text(value).append(" " * (width - value.cell_len + 2))
        line.rstrip()
        lines.append(line)
    return lines


def status_text(status: str) -> Text:
    return Text(printable(status), style=STYLES.get(status, ""))
