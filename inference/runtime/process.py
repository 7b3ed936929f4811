"""Cores that a process may use, and how Linux schedules it."""

from __future__ import annotations

import contextlib
import os
import sys
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


def use_batch_scheduling() -> None:
    """Schedule this thread and all that it starts by Linux's SCHED_BATCH: one that wakes up does not preempt one that runs.

    A request goes through four processes, each of which would take a core from one that was about to wait anyway. A policy that
    somebody chose stays, as does one that a sandbox does not let us change.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            if os.sched_getscheduler(0) == os.SCHED_OTHER:
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
