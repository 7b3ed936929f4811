"""Room for more work: new requests are refused before a disk or the record store is full, since then nothing could be finished.

What is under way needs room of its own: results, the outbox, dead letters, and the append-only file's rewrite.
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

#: Seconds that a look counts.
_LOOK_AGE_S = 1.0
_RETRY_AFTER_S = 30.0
#: Share of the record store's memory beyond which nothing new is taken.
_MAX_MEMORY_SHARE = 0.9
_MB = 2**20


class FreeSpace:
    """Looks at disks and memory once a second at most, whoever asks. Safe to share between threads and greenlets.

    Args:
        folders: those that are written to, which may be missing yet, by what they hold.
        min_free_bytes: what their disks must have free; 0: they are not looked at.
        memory: gives what the record store uses, and its limit, 0 where it has none.
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
        self._folders = {what: folder.absolute() for what, folder in folders.items()} if min_free_bytes else {}
        self._min_free_bytes = min_free_bytes
        self._memory = memory
        self._clock = clock
        self._look_again_at = clock()
        self._problem: str | None = None

    def check(self) -> None:
        """Raise StorageFull while there is too little room for a new request."""
        if self._clock() >= self._look_again_at:
            self._look_again_at = self._clock() + _LOOK_AGE_S  # first: others go by the last answer meanwhile
            problem = next(self.problems(), None)
            if problem and not self._problem:
                logger.warning("%s: new requests are refused", problem)
            self._problem = problem
        if self._problem:
            raise StorageFull(self._problem, retry_after_s=_RETRY_AFTER_S)

    def problems(self) -> Iterator[str]:
        """Look now, and say what is nearly full. A record store that does not answer is no matter of room."""
        for what, folder in self._folders.items():
            free = _free_bytes(folder)
            if free is not None and free < self._min_free_bytes:
                yield (
                    f"the disk of {what} has {free // _MB} MiB free, less than {self._min_free_bytes // _MB}"
                    " (uploads.min_free_disk_mb)"
                )
        used, limit = self._memory()
        if limit and used > limit * _MAX_MEMORY_SHARE:
            yield f"the task store is nearly full: it uses {used // _MB} of {limit // _MB} MiB"


def free_space_of(settings: Settings, client: redis.Redis) -> FreeSpace:
    """Room for the parts that the settings name; `client` is the record store's."""
    folders = {}
    if settings.uploads.store == "local":
        folders["the uploads"] = settings.uploads_path
    if settings.is_embedded:
        folders["the embedded broker"] = settings.data_dir / "broker"
    return FreeSpace(folders, settings.uploads.min_free_disk_mb * _MB, lambda: _memory_of(client))


def _free_bytes(folder: Path) -> int | None:
    """Free bytes on the disk of a folder that may be missing yet; None where that cannot be known."""
    try:
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
        return shutil.disk_usage(nearest).free
    except OSError:  # no right to look, a file system that went away: whoever writes there says so
        return None


def _memory_of(client: redis.Redis) -> tuple[int, int]:
    """Bytes that a server uses, and its limit; 0 where it does not say, has none, or makes room itself by evicting keys."""
    try:
        with unavailable_when_down():
            info: Any = client.info("memory")
    except Exception:  # noqa: BLE001 managed servers forbid INFO; one that is down is told by who needs it
        return 0, 0
    makes_room = info.get("maxmemory_policy", "noeviction") != "noeviction"
    return int(info.get("used_memory", 0)), 0 if makes_room else int(info.get("maxmemory", 0))
