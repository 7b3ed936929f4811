"""A clock that goes when the test says so."""

from __future__ import annotations


class FakeClock:
    """Seconds since the epoch; a `Callable[[], float]` like `time.time` and `time.monotonic`."""

    def __init__(self, start_s: float = 1_700_000_000.0) -> None:
        self._now_s = start_s

    def __call__(self) -> float:
        return self._now_s

    def advance(self, seconds: float) -> None:
        self._now_s += seconds

    @property
    def now_ms(self) -> int:
        return round(self._now_s * 1000)
