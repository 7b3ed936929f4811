"""Memory of this machine or container, and its return to the system."""

from __future__ import annotations

import ctypes
import gc
import os
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from inference.runtime.gevent import run_blocking

#: Limits of the control group, version 2 and 1; "max", or a number near 2^63, means no limit.
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
#: Options of mallopt(3), for which Python has no names.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def usable_memory_bytes(limits: tuple[Path, ...] = _LIMITS) -> int:
    """Return the size of the machine's memory, or the container's limit if that is lower, in bytes."""
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([installed, *(limit for limit in map(_limit, limits) if limit)])


def return_large_blocks(*, from_bytes: int, kept_bytes: int) -> None:
    """Let glibc return freed blocks of a minimum size to the system at once, from now on.

    By default glibc keeps blocks of up to 32 MiB for the thread that freed them once one was freed, and `give_memory_back` cannot
    return these. Has no effect with other C libraries.

    Args:
        from_bytes: the minimum size.
        kept_bytes: free memory at the end of the heap that glibc keeps, since allocating 4 MB again takes 1 ms.
    """
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    if adjust is not None:
        adjust(_M_MMAP_THRESHOLD, from_bytes)
        adjust(_M_TRIM_THRESHOLD, kept_bytes)


def give_memory_back() -> None:
    """Collect unreachable objects, and return freed memory to the system.

    glibc keeps free memory below blocks that are still in use. Other C libraries are not called.
    """
    gc.collect()
    trim = _malloc_trim()
    if trim is not None:
        run_blocking(partial(trim, 0))


@lru_cache(maxsize=1)
def _malloc_trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


def _limit(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
