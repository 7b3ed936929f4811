"""End of a process with the process that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

_INTERVAL_S = 1.0
#: of Linux's prctl.h
_PR_SET_PDEATHSIG = 1


def live_for_parent() -> None:
    """Ignore signals for a stop, and end this process within a second of its parent's end, with its threads.

    The parent decides when this process ends: Ctrl-C or a stop of the process group must not interrupt a batch, and a call
    that hangs would not notice a closed socket.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_after, args=(os.getppid(),), daemon=True).start()


def die_with_parent(parent: int) -> None:
    """Let Linux kill this process at once when the thread that started it ends, even inside a call of a library.

    Only for a process that is awaited by that thread.

    Args:
        parent: id of the process that started this one; if it has ended already, this process ends here.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _end_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_INTERVAL_S)
    os._exit(1)
