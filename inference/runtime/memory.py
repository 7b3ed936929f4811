"""Memory: how much this machine, or this container, has, and how a process gives it back."""

from __future__ import annotations

import ctypes
import gc
import os
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from inference.runtime.gevent import run_blocking

#: Limits of the control group, version 2 and 1; "max", or a number near 2^63, is none.
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
#: Options of mallopt(3), which Python has no names for.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def usable_memory_bytes(limits: tuple[Path, ...] = _LIMITS) -> int:
    """Bytes of the machine's memory, or fewer where a container's limit says so."""
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([installed, *(limit for limit in map(_limit, limits) if limit)])


def return_large_blocks(*, from_bytes: int, kept_bytes: int) -> None:
    """Let freed blocks of a size and more go back to the system at once, from now on.

    By itself glibc keeps blocks of up to 32 MiB for the thread that freed them once one was freed, out of the reach of
    `give_memory_back`. Other C libraries are left alone.

    Args:
        from_bytes: the size.
        kept_bytes: free memory at the end of the heap that is kept, since to get it again takes 1 ms for 4 MB.
    """
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    if adjust is not None:
        adjust(_M_MMAP_THRESHOLD, from_bytes)
        adjust(_M_TRIM_THRESHOLD, kept_bytes)


def give_memory_back() -> None:
    """Return freed memory to the system, that of unreachable objects too, which may have references to much.

    glibc keeps whatever is below something that is still in use. Other C libraries are left alone.
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
