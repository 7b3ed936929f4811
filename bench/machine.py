"""Description of the machine that the figures were measured on."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import packages_distributions, version
from pathlib import Path

import psutil


def description() -> str:
    """Describe the machine, Python, TensorFlow and the day in one line."""
    memory_gb = psutil.virtual_memory().total / 1e9
    cores = f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores"
    tensorflow = version(packages_distributions()["tensorflow"][0])  # the package may be tensorflow-cpu
    software = f"Python {platform.python_version()}, TensorFlow {tensorflow}, {platform.system()} {platform.release()}"
    return f"{_processor()}, {cores}, {memory_gb:.0f} GB; {software}; {datetime.now(UTC):%Y-%m-%d}"


def _processor() -> str:
    """Read the processor's model name; on Linux from /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
