"""Files in the shared folder, with the values of each process: their sum, and those of processes that have ended."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from inference.metrics.sharing import shared_folder
from inference.runtime.file_lock import file_lock


class SharedInstruments(Collector):
    """Collector of the instruments of all processes that share a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = MultiProcessCollector(None, str(folder))

    def collect(self) -> Iterable[Metric]:
        """Read the sums now."""
        with file_lock(_lock_file(self._folder), _do_nothing):
            return list(self._files.collect())


def add_ended_process(pid: int) -> None:
    """Remove the gauges of a process that has ended, and add its counters to those of the processes that ended before.

    Otherwise each process that ever ran would leave files, and each scrape would read them.
    """
    folder = shared_folder()
    if folder is None:
        return
    with file_lock(_lock_file(folder), _do_nothing):
        mark_process_dead(pid, str(folder))
        for kind in ("counter", "histogram"):
            file = folder / f"{kind}_{pid}.db"
            if file.exists():
                _add(file, folder / f"{kind}_ended.db")
                file.unlink()


def _add(file: Path, sums_file: Path) -> None:
    sums = MmapedDict(str(sums_file))
    try:
        for key, value, _, _ in MmapedDict.read_all_values_from_file(str(file)):
            sums.write_value(key, sums.read_value(key)[0] + value, 0.0)
    finally:
        sums.close()


def _lock_file(folder: Path) -> Path:
    return folder / "lock"


def _do_nothing() -> None:
    pass
