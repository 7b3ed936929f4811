"""Guard process that ends the children of a killed server.py: `python -m inference.launcher.guard`, with input from server.py.

Each line of the input is `+PID`, to watch a process (a group leader), or `-PID`, to stop watching it. At the end of the input the
guard ends the watched processes in the reverse order of their start: the broker, which the others need, last.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

#: Time in which a process must end after SIGTERM, seconds.
_TERM_TIMEOUT_S = 10.0


def end_group(pid: int, timeout_s: float = _TERM_TIMEOUT_S) -> None:
    """Send SIGTERM to the process, wait for its end, then send SIGKILL to its whole group."""
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
