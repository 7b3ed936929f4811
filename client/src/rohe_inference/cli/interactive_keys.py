"""Single keys from a terminal, without Enter."""

from __future__ import annotations

import contextlib
import select
import sys
import time
from collections.abc import Iterator


@contextlib.contextmanager
def unbuffered_keys() -> Iterator[None]:
    """Let the terminal pass each key on at once, and not show it; nothing if stdin is no terminal."""
    if sys.platform == "win32" or not sys.stdin.isatty():
        yield
        return
    import termios  # noqa: PLC0415 - not on every system
    import tty  # noqa: PLC0415

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def pressed_key(timeout_s: float) -> str:
    """Wait for a key, and return it; an empty text after `timeout_s`."""
    if sys.platform == "win32" or not sys.stdin.isatty():
        time.sleep(timeout_s)
        return ""
    ready, _, _ = select.select([sys.stdin], [], [], timeout_s)
    return sys.stdin.read(1) if ready else ""
