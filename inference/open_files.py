"""How many files and connections a process may have open: the system's soft limit is usually 1,024, its hard limit far more."""

from __future__ import annotations

import contextlib
import errno
import resource

#: Enough for a worker or a relay: connections to Redis, the object store and sinks, arenas, uploads, logs.
OPEN_FILES = 4_096


def let_open(files: int) -> int:
    """Raise the soft limit to `files`, or as far as the hard limit lets us. Never lowers it; gives the limit that is in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        files = min(files, hard)
    if soft != resource.RLIM_INFINITY and soft < files:
        with contextlib.suppress(ValueError, OSError):  # macOS has a limit below the one that it names
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return files if soft == resource.RLIM_INFINITY else soft


def out_of_files(error: BaseException) -> OSError | None:
    """The error behind `error` that says that this process, or the system, can open no more files; None: there is none."""
    found: BaseException | None = error
    seen: set[int] = set()
    while found is not None and id(found) not in seen:
        if isinstance(found, OSError) and found.errno in {errno.EMFILE, errno.ENFILE}:
            return found
        seen.add(id(found))
        found = found.__cause__ or found.__context__
    return None
