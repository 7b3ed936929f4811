"""Memory that this machine, or this container, has."""

from __future__ import annotations

import os
from pathlib import Path

#: Limits of the control group, version 2 and 1; "max", or a number near 2^63, is none.
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def usable_memory_bytes(limits: tuple[Path, ...] = _LIMITS) -> int:
    """Bytes of the machine's memory, or fewer where a container's limit says so."""
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([installed, *(limit for limit in map(_limit, limits) if limit)])


def _limit(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
