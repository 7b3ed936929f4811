"""Files in the shared folder, with the values of each process: their sum, and those of processes that have ended."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from inference.metrics.shared_values import shared_folder
from inference.runtime.file_lock import file_lock

logger = logging.getLogger(__name__)


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

    Otherwise each process that ever ran would leave files, and each scrape would read them. No error is raised: it would end the
    main process, and with it the API. A file that cannot be read is removed, since it would fail each scrape.
    """
    folder = shared_folder()
    if folder is None:
        return
    try:
        with file_lock(_lock_file(folder), _do_nothing):
            mark_process_dead(pid, str(folder))
            for kind in ("counter", "histogram"):
                _move(folder / f"{kind}_{pid}.db", folder / f"{kind}_ended.db")
    except Exception:
        logger.exception("the metrics of process %d, which has ended, cannot be added to those of the others", pid)


def _move(file: Path, sums_file: Path) -> None:
    if not file.exists():
        return
    try:
        _add(file, sums_file)
    except Exception:
        logger.exception("%s cannot be read: the counts of a process that was killed are lost", file)
    finally:
        file.unlink(missing_ok=True)


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
