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

from inference.errors import ConfigurationError

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "inference-metrics-"
#: Memory that processes share: the system kills a process that writes to a mapped file on a full disk.
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 the folder has a random name and is private
#: Age from which a folder without a lock is one that a killed API left, seconds: a new one is locked at once.
_MIN_AGE_S = 60.0
#: The folder of this process, if it has one. The variable alone may come from the user's environment.
_shared: list[Path] = []


def share_metrics(parent: Path | None = None) -> None:
    """Let this process and its forks share the values of their instruments, until this process ends.

    Args:
        parent: folder of the folder; default: in memory, or the folder for temporary files where there is no such folder.

    Raises:
        ConfigurationError: the folder cannot be created.
        RuntimeError: `prometheus_client` is imported already.
    """
    if "prometheus_client" in sys.modules:
        raise RuntimeError("prometheus_client was imported before the folder for its values was chosen")
    try:
        parent = parent or _default_parent()
        _remove_left_folders(parent)
        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent))
    except OSError as error:
        raise ConfigurationError(f"no folder for the values of metrics can be created: {error}; set TMPDIR") from error
    fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)  # until the last of these processes has ended
    os.environ[_VARIABLE] = str(folder)
    _shared.append(folder)
    atexit.register(_remove, folder, os.getpid())


def shared_folder() -> Path | None:
    """Return the folder with the values of this process and others; None: it has its values for itself."""
    return _shared[0] if _shared else None


def _default_parent() -> Path:
    is_usable = _SHARED_MEMORY.is_dir() and os.access(_SHARED_MEMORY, os.W_OK | os.X_OK)
    return _SHARED_MEMORY if is_usable else Path(tempfile.gettempdir())


def _remove(folder: Path, pid: int) -> None:
    if os.getpid() == pid:  # forked processes call this too
        shutil.rmtree(folder, ignore_errors=True)


def _remove_left_folders(parent: Path) -> None:
    """Remove the folders of APIs that were killed."""
    for folder in parent.glob(f"{_PREFIX}*"):
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
