"""Ends what a killed server.py leaves behind: `python -m inference.launcher.guard`, with the other end of its standard input held
by server.py.

Each line is `+PID` or `-PID`: a process (group leader) to look after, or not any more. When the input ends, those still there are
ended in the reverse order of their start: the broker, which the others need, last.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

#: Seconds that a process has to end after SIGTERM.
_TERM_TIMEOUT_S = 10.0


def end_group(pid: int, timeout_s: float = _TERM_TIMEOUT_S) -> None:
    """SIGTERM to the process, time to end, then SIGKILL to its whole group."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            os.kill(pid, 0)
            time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    watched: list[int] = []
    for line in sys.stdin:
        pid = int(line[1:])
        if line.startswith("+"):
            watched.append(pid)
        else:
            watched.remove(pid)
    for pid in reversed(watched):
        end_group(pid)


if __name__ == "__main__":
    main()
