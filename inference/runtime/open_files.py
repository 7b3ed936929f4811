"""Limit of open files and connections of a process, and the report when it is reached.

The system's soft limit is usually 1,024, its hard limit far more.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import resource
import time

logger = logging.getLogger(__name__)

#: Errors of a process or system that cannot open another file, or has no memory for one.
_NO_FILES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_SILENCE_S = 60.0
#: Enough for a worker or a relay: connections to Redis, the object store and sinks, arenas, uploads, logs.
OPEN_FILES = 4_096


def raise_open_file_limit(files: int) -> int:
    """Raise the soft limit to `files`, or as far as the hard limit allows. Never lowers it; returns the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        files = min(files, hard)
    if soft != resource.RLIM_INFINITY and soft < files:
        with contextlib.suppress(ValueError, OSError):  # macOS has a lower limit than the one that it reports
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return files if soft == resource.RLIM_INFINITY else soft


class _Report:
    """Log line about a file that could not be opened, at most once a minute.

    Attributes:
        silent_until: time on the monotonic clock; until then no further line is logged.
    """

    silent_until = 0.0

    def __call__(self, error: OSError) -> None:
        now = time.monotonic()
        if now >= self.silent_until:
            self.silent_until = now + _SILENCE_S
            logger.error(
                "%s: requests wait, or are refused with 503, until other files are closed; raise the limit (ulimit -n)",
                error.strerror,
            )


report = _Report()


def out_of_files(error: BaseException | None) -> OSError | None:
    """Return the error with which the system refused to open a file, if `error` is it or was caused by it; else None."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError) and error.errno in _NO_FILES:
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None
