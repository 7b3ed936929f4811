"""End of a process with the process that started it."""

from __future__ import annotations

import os
import signal
import threading
import time

_INTERVAL_S = 1.0


def live_for_parent() -> None:
    """Ignore signals for a stop, and end this process within a second of its parent's end, whatever its threads do.

    The parent decides when this process ends: Ctrl-C or a stop of the process group must not interrupt a batch, and a call
    that hangs would not notice a closed socket.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_after, args=(os.getppid(),), daemon=True).start()


def _end_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_INTERVAL_S)
    os._exit(1)
