"""Memory: how much this machine, or this container, has, and how a process gives it back."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

#: Limits of the control group, version 2 and 1; "max", or a number near 2^63, is none.
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
#: Of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def usable_memory_bytes(limits: tuple[Path, ...] = _LIMITS) -> int:
    """Bytes of the machine's memory, or fewer where a container's limit says so."""
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([installed, *(limit for limit in map(_limit, limits) if limit)])


def return_large_blocks() -> None:
    """Let freed blocks of 8 MiB and more go back to the system at once, from now on.

    By itself glibc keeps blocks of up to 32 MiB for the thread that freed them once one was freed: pictures that are decoded one
    after the other, each on another thread, stay in memory as if they had been decoded at the same time. Pillow's blocks have up
    to 16 MiB. Other C libraries are left alone.
    """
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    if adjust is not None:
        adjust(_M_MMAP_THRESHOLD, 2**23)
        adjust(_M_TRIM_THRESHOLD, 2**25)  # else smaller ones would go back each time, and cost 1 ms for 4 MB to get again


def _limit(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
