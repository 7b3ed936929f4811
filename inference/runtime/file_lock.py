"""Lock that processes of a host take one after another."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

#: Pause between two attempts: a blocking lock would stop all greenlets of an API.
_INTERVAL_S = 0.1


@contextmanager
def file_lock(file: Path, on_wait: Callable[[], object]) -> Iterator[None]:
    """Wait until this process has the lock on `file`, which is created; the system releases it if the process ends.

    Args:
        on_wait: called once if another process has the lock.

    Raises:
        OSError: the file cannot be created or opened.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lock:
        is_waiting = False
        while not _try_lock(lock):
            if not is_waiting:
                on_wait()
                is_waiting = True
            time.sleep(_INTERVAL_S)
        yield


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
