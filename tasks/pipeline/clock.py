"""The task store's clock as this worker knows it, so that times of two machines can be subtracted."""

from __future__ import annotations

import time


class StoreClock:
    """Clock of the task store: set from every answer to a lease, and advanced by the local clock between two answers."""

    def __init__(self) -> None:
        self._offset_ms = 0.0

    def set(self, now_ms: int) -> None:
        self._offset_ms = now_ms - time.monotonic() * 1000

    def now_ms(self) -> int:
        """Return the store's time in ms since the epoch."""
        return round(self._offset_ms + time.monotonic() * 1000)
