"""Figures of this part's processes, and its version: read when they are asked for.

The figures are sums over the main process and its children: gunicorn's processes of the API, the predictor processes of a worker.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from inference import __version__

#: The process that first imported this module; of the API, that is the parent of the processes that serve requests.
_MAIN_PID = os.getpid()
_PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class _Process:
    """Figures of one process."""

    cpu_s: float
    #: CPU time of its children that have ended
    ended_cpu_s: float
    started_s: float
    virtual_bytes: int
    resident_bytes: int
    open_files: int
    max_files: int


class ProcessFigures(Collector):
    """Collector of `process_*` and `inference_build_info`. Without /proc there is only the latter."""

    def __init__(self, pid: int = _MAIN_PID) -> None:
        self._pid = pid

    def collect(self) -> Iterator[Metric]:
        """Read the figures now."""
        info = GaugeMetricFamily(
            "inference_build_info", "Version of the service and of Python; the value is 1.", labels=("version", "python")
        )
        info.add_metric((__version__, platform.python_version()), 1)
        yield info
        main = _read(self._pid)
        if main is None:
            return
        children = [child for pid in _children(self._pid) if (child := _read(pid)) is not None]
        yield from _families(main, children)


def _families(main: _Process, children: list[_Process]) -> Iterator[Metric]:
    processes = [main, *children]
    # The CPU time of a child that ends becomes a part of its parent's, so that the sum does not fall.
    cpu_s = main.ended_cpu_s + sum(process.cpu_s for process in processes)
    yield CounterMetricFamily("process_cpu_seconds", "CPU time of the processes, user and system.", value=cpu_s)
    gauges = {
        "inference_processes": ("Processes of this part.", len(processes)),
        "process_start_time_seconds": ("Start of the main process, Unix time.", main.started_s),
        "process_virtual_memory_bytes": ("Virtual memory.", sum(process.virtual_bytes for process in processes)),
        "process_resident_memory_bytes": (
            "Resident memory; shared pages count for each process.",
            sum(process.resident_bytes for process in processes),
        ),
        "process_open_fds": ("Open file descriptors.", sum(process.open_files for process in processes)),
        "process_max_fds": ("Limit of open file descriptors.", sum(process.max_files for process in processes)),
    }
    for name, (text, value) in gauges.items():
        yield GaugeMetricFamily(name, text, value=value)


def _children(pid: int) -> Iterator[int]:
    """Yield the children of a process; the kernel lists them by the thread that started them."""
    for file in (_PROC / str(pid) / "task").glob("*/children"):
        try:
            yield from map(int, file.read_text().split())
        except OSError:  # the thread has ended
            continue


def _read(pid: int) -> _Process | None:
    """Return the figures of a process; None if it has ended, or there is no /proc."""
    folder = _PROC / str(pid)
    try:
        # proc(5), stat: the fields after the name, which ends with the last parenthesis
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        boot_s = next(int(line.split()[1]) for line in (_PROC / "stat").read_text().splitlines() if line.startswith("btime "))
        files = sum(1 for _ in (folder / "fd").iterdir())
        limits = (folder / "limits").read_text()
    except (OSError, StopIteration):
        return None
    user, system, ended_user, ended_system = (int(field) / _TICKS_PER_S for field in fields[11:15])
    return _Process(
        cpu_s=user + system,
        ended_cpu_s=ended_user + ended_system,
        started_s=boot_s + int(fields[19]) / _TICKS_PER_S,
        virtual_bytes=int(fields[20]),
        resident_bytes=int(fields[21]) * _PAGE_BYTES,
        open_files=files,
        max_files=_soft_limit(limits, "Max open files"),
    )


def _soft_limit(limits: str, name: str) -> int:
    """Return a limit of proc(5), limits; 0 if there is none."""
    value = next((line.removeprefix(name).split()[0] for line in limits.splitlines() if line.startswith(name)), "")
    return int(value) if value.isdigit() else 0
