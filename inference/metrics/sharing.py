"""Folder in which the processes of one API share the values of their instruments.

`prometheus_client` reads the environment when it is first imported, so this module does not import it.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "inference-metrics-"
#: Age from which a folder without a lock is one that a killed API left, seconds: a new one is locked at once.
_MIN_AGE_S = 60.0


def share_metrics() -> None:
    """Let this process and those that it forks share the values of their instruments, until this process ends.

    Raises:
        RuntimeError: `prometheus_client` is imported already.
    """
    if "prometheus_client" in sys.modules:
        raise RuntimeError("prometheus_client was imported before the folder for its values was chosen")
    _remove_left_folders()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)  # until the last of these processes has ended
    os.environ[_VARIABLE] = str(folder)
    atexit.register(_remove, folder, os.getpid())


def shared_folder() -> Path | None:
    """Return the folder with the values of this process and others; None: it has its values for itself."""
    path = os.environ.get(_VARIABLE)
    return Path(path) if path else None


def _remove(folder: Path, pid: int) -> None:
    if os.getpid() == pid:  # forked processes call this too
        shutil.rmtree(folder, ignore_errors=True)


def _remove_left_folders() -> None:
    """Remove the folders of APIs that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, or another process has removed it
            if time.time() - folder.stat().st_mtime >= _MIN_AGE_S:
                _remove_unlocked(folder)


def _remove_unlocked(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    finally:
        os.close(descriptor)
