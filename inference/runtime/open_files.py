"""How many files and connections a process may have open, and what is done when there are no more.

The system's soft limit is usually 1,024, its hard limit far more.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import resource
import time

logger = logging.getLogger(__name__)

#: Errors that mean that the process or the system has no file, or no memory for one, left.
_NO_FILES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_SILENCE_S = 60.0
#: Enough for a worker or a relay: connections to Redis, the object store and sinks, arenas, uploads, logs.
OPEN_FILES = 4_096


def raise_open_file_limit(files: int) -> int:
    """Raise the soft limit to `files`, or as far as the hard limit allows. Never lowers it; gives the limit that is in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        files = min(files, hard)
    if soft != resource.RLIM_INFINITY and soft < files:
        with contextlib.suppress(ValueError, OSError):  # macOS has a limit below the one that it names
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return files if soft == resource.RLIM_INFINITY else soft


class _Report:
    """The line in the log.

    Attributes:
        silent_until: on the monotonic clock; one line stands for all that happens before.
    """

    silent_until = 0.0

    def __call__(self, error: OSError) -> None:
        now = time.monotonic()
        if now >= self.silent_until:
            self.silent_until = now + _SILENCE_S
            logger.error("%s: what needs one waits, or is refused with 503, until others are closed (ulimit -n)", error.strerror)


report = _Report()


def out_of_files(error: BaseException | None) -> OSError | None:
    """The error by which the system refused a file, where `error` is that or was caused by it; else None."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError) and error.errno in _NO_FILES:
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None
