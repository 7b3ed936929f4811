"""How much of the machine is ours."""

from __future__ import annotations

import os
from pathlib import Path

_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(cpu_max: Path = _CPU_MAX) -> int:
    """Cores that this process can keep busy: those it may run on, or fewer where a container's quota says so.

    Args:
        cpu_max: of cgroup 2: "QUOTA PERIOD" in microseconds, or "max PERIOD".
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = cpu_max.read_text().split()
    except OSError:  # no cgroup, or the old kind
        return allowed
    return allowed if quota == "max" else max(1, min(allowed, round(int(quota) / int(period))))
