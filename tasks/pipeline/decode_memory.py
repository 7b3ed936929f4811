"""Memory budget for the images that a worker decodes at the same time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

#: Images that need no more are not counted: all threads together need less for them than one small image does.
TINY_BYTES = 2**20
#: A small image is one of which this many fit into the memory for small images.
_SMALL_IMAGES = 4
#: The memory for small images is the budget divided by this.
_SMALL_SHARE = 4


@dataclass(frozen=True)
class _Waiting:
    needed_bytes: int
    on_granted: Callable[[], None]


class DecodeMemory:
    """Budget of bytes for all models of a worker. Safe to share between threads.

    A quarter of it is for small images, which therefore never wait for large ones. Large ones get the rest in the order of
    their requests; one that needs more than the rest gets all of it, and is decoded without other large ones.

    Args:
        capacity_bytes: memory that images may take together.
        max_large: how many large images may be decoded at the same time, so that a thread is left for small ones.
    """

    def __init__(self, capacity_bytes: int = 2**29, *, max_large: int = 1) -> None:
        self._for_small = capacity_bytes // _SMALL_SHARE
        self._for_large = capacity_bytes - self._for_small
        self._max_large = max_large
        self._changed = threading.Condition()
        self._small_used = 0
        self._large_used = 0
        self._large_count = 0
        self._waiting: deque[_Waiting] = deque()

    def is_large(self, needed_bytes: int) -> bool:
        """Return whether an image needs `reserve_large`."""
        return needed_bytes > self._for_small // _SMALL_IMAGES

    @contextmanager
    def reserve_small(self, needed_bytes: int) -> Iterator[None]:
        """Hold the memory of a small image in the block; may wait for other small images, which take milliseconds each."""
        with self._changed:
            self._changed.wait_for(lambda: self._small_used + needed_bytes <= self._for_small)
            self._small_used += needed_bytes
        try:
            yield
        finally:
            with self._changed:
                self._small_used -= needed_bytes
                self._changed.notify_all()

    def reserve_large(self, needed_bytes: int, on_granted: Callable[[], None]) -> bool:
        """Reserve the memory of a large image.

        Args:
            needed_bytes: to be passed to `release_large` once the image is decoded.
            on_granted: called on another thread when the memory is reserved, if it is not reserved at once.

        Returns:
            Whether it is reserved now.
        """
        with self._changed:
            if self._waiting or not self._fits(needed_bytes):
                self._waiting.append(_Waiting(needed_bytes, on_granted))
                return False
            self._take(needed_bytes)
            return True

    def release_large(self, needed_bytes: int) -> None:
        """Return a reservation, and grant the reservations that wait for it."""
        granted = []
        with self._changed:
            self._large_used -= min(needed_bytes, self._for_large)
            self._large_count -= 1
            while self._waiting and self._fits(self._waiting[0].needed_bytes):
                granted.append(self._waiting.popleft())
                self._take(granted[-1].needed_bytes)
        for one in granted:
            one.on_granted()

    def _fits(self, needed_bytes: int) -> bool:
        room = self._for_large - self._large_used
        return min(needed_bytes, self._for_large) <= room and self._large_count < self._max_large

    def _take(self, needed_bytes: int) -> None:
        self._large_used += min(needed_bytes, self._for_large)
        self._large_count += 1
