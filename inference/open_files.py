"""How many files and connections a process may have open: the system's soft limit is usually 1,024, its hard limit far more."""

from __future__ import annotations

import contextlib
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
