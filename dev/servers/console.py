"""What the user sees, and the one error."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

_lock = threading.Lock()


class ServicesError(Exception):
    """A server cannot be had or does not come up; the message is all that the user needs."""


def say(text: str) -> None:
    """One line of output; servers come up side by side, so lines must not mix."""
    with _lock:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def log_tail(log: Path, lines: int = 20) -> str:
    """The last lines of a log, as the end of an error message."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace").rstrip()
    except OSError:
        text = ""
    shown = "\n".join(f"  | {line}" for line in text.splitlines()[-lines:])
    return f"the end of {log}:\n{shown}" if shown else f"{log} is empty"
