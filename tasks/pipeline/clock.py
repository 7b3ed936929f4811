"""The record store's clock as this worker knows it, so that times of two machines can be subtracted."""

from __future__ import annotations

import time


class StoreClock:
    """Set from every lease answer; runs on by itself in between."""

    def __init__(self) -> None:
        self._offset_ms = 0.0

    def set(self, now_ms: int) -> None:
        self._offset_ms = now_ms - time.monotonic() * 1000

    def now_ms(self) -> int:
        """The store's time in ms since the epoch."""
        return round(self._offset_ms + time.monotonic() * 1000)
