"""Output for the user, and the error of this package."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

_lock = threading.Lock()


class ServicesError(Exception):
    """A server cannot be installed or does not start; the message is complete for the user."""


def say(text: str) -> None:
    """Print one line at once, because servers start concurrently and lines must not mix."""
    with _lock:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def warn(text: str) -> None:
    """Print one line that nobody overlooks, to standard error."""
    with _lock:
        sys.stderr.write(f"WARNING: {text}\n")
        sys.stderr.flush()


def log_tail(log: Path, lines: int = 20) -> str:
    """Format the last lines of a log for the end of an error message."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace").rstrip()
    except OSError:
        text = ""
    shown = "\n".join(f"  | {line}" for line in text.splitlines()[-lines:])
    return f"the end of {log}:\n{shown}" if shown else f"{log} is empty"
