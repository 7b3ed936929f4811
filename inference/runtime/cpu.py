"""Number of cores that a process may use, and its scheduling on Linux."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(cpu_max: Path = _CPU_MAX) -> int:
    """Return the number of cores that this process can use: the cores of its affinity, or fewer by a container's quota.

    Args:
        cpu_max: file of cgroup 2: "QUOTA PERIOD" in microseconds, or "max PERIOD".
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = cpu_max.read_text().split()
    except OSError:  # no cgroup, or cgroup 1
        return allowed
    return allowed if quota == "max" else max(1, min(allowed, round(int(quota) / int(period))))


def use_batch_scheduling() -> None:
    """Schedule this thread and all that it starts by Linux's SCHED_BATCH: a process that wakes up preempts no running process.

    A request passes through four processes; each would otherwise preempt one that is about to wait anyway. A policy other than
    the default stays, and so does a policy that a sandbox does not let us change.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            if os.sched_getscheduler(0) == os.SCHED_OTHER:
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
