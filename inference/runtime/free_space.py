"""Check for free space: new requests are refused before a disk or the task store is full, since then no task could end.

Accepted tasks still need room for results, the outbox, dead letters, and the rewrite of the append-only file.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import redis

from inference.errors import StorageFull
from inference.runtime.redis import unavailable_when_down
from inference.settings import Settings

logger = logging.getLogger(__name__)

#: Seconds for which a check is valid.
_CHECK_AGE_S = 1.0
_RETRY_AFTER_S = 30.0
#: Share of the task store's memory above which new requests are refused.
_MAX_MEMORY_SHARE = 0.9
_MB = 2**20


class FreeSpace:
    """Checks disks and memory at most once a second, however often it is called. Safe for threads and greenlets.

    Args:
        folders: folders that are written to, by a name of their content; they may not exist yet.
        min_free_bytes: free space that their disks must have; 0: disks are not checked.
        memory: returns the bytes that the task store uses, and its limit; 0: no limit.
        clock: in seconds.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        min_free_bytes: int,
        memory: Callable[[], tuple[int, int]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folders = {name: folder.absolute() for name, folder in folders.items()}
        self._min_free_bytes = min_free_bytes
        self._memory = memory
        self._clock = clock
        self._next_check_at = clock()
        self._problem: str | None = None

    def check(self) -> None:
        """Raise StorageFull while there is too little room for a new request."""
        if self._clock() >= self._next_check_at:
            self._next_check_at = self._clock() + _CHECK_AGE_S  # first, so that other callers use the last result meanwhile
            problem = next(self.problems(), None)
            if problem and not self._problem:
                logger.warning("%s: new requests are refused", problem)
            self._problem = problem
        if self._problem:
            raise StorageFull(self._problem, retry_after_s=_RETRY_AFTER_S)

    def problems(self) -> Iterator[str]:
        """Check now, and yield a sentence for each full disk or store. A task store that does not answer is not reported here."""
        for name, folder in self._folders.items() if self._min_free_bytes else ():
            free = _free_bytes(folder)
            if free is not None and free < self._min_free_bytes:
                yield (
                    f"the disk of the {name.replace('_', ' ')} has {free // _MB} MiB free,"
                    f" less than {self._min_free_bytes // _MB} (uploads.min_free_disk_mb)"
                )
        used, limit = self._memory()
        if limit and used > limit * _MAX_MEMORY_SHARE:
            yield f"the task store is nearly full: it uses {used // _MB} of {limit // _MB} MiB"

    def free_bytes(self) -> dict[str, int]:
        """Return the free bytes on the disk of each folder, by the name of its content; without unknown ones."""
        free = {name: _free_bytes(folder) for name, folder in self._folders.items()}
        return {name: count for name, count in free.items() if count is not None}

    def memory_bytes(self) -> tuple[int, int]:
        """Return the bytes that the task store uses, and its limit; 0 if it does not tell them, has no limit, or evicts keys."""
        return self._memory()


def free_space_of(settings: Settings, client: redis.Redis) -> FreeSpace:
    """Return the check for the folders that the settings name; `client` is connected to the task store."""
    folders = {}
    if settings.uploads.store == "local":
        folders["uploads"] = settings.uploads_path
    if settings.is_embedded:
        folders["embedded_broker"] = settings.data_dir / "broker"
    return FreeSpace(folders, settings.uploads.min_free_disk_mb * _MB, lambda: _memory_of(client))


def _free_bytes(folder: Path) -> int | None:
    """Return the free bytes on the disk of a folder, which may not exist yet; None if they are unknown."""
    try:
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
        return shutil.disk_usage(nearest).free
    except OSError:  # no permission, or a lost file system: the code that writes there reports it
        return None


def _memory_of(client: redis.Redis) -> tuple[int, int]:
    """Return the used bytes and the limit of a server; 0 if it does not tell them, has no limit, or evicts keys itself."""
    try:
        with unavailable_when_down():
            info: Any = client.info("memory")
    except Exception:  # noqa: BLE001 managed servers forbid INFO; other calls report a server that is down
        return 0, 0
    evicts_keys = info.get("maxmemory_policy", "noeviction") != "noeviction"
    return int(info.get("used_memory", 0)), 0 if evicts_keys else int(info.get("maxmemory", 0))
