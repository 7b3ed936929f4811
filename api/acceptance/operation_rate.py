"""Rate of an owner's requests that make no task: new uploads, and erasures of the tasks of a request id."""

from __future__ import annotations

import time
from collections.abc import Callable

from inference.access import Caller
from inference.errors import RateLimited

#: Owners whose requests are remembered.
_MAX_OWNERS = 1000


class OperationRate:
    """Counts these requests against the rate limit of a key, in this process: they need no round trip to the task store.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: by owner, the time at which the space of all earlier requests is over (GCRA)
        self._due_s: dict[str, float] = {}

    def count(self, caller: Caller) -> None:
        """Count a request. Raises RateLimited, and counts nothing."""
        rate = caller.limits.rate
        if rate is None:
            return
        now_s = self._clock()
        due_s = max(self._due_s.get(caller.owner, now_s), now_s)
        wait_s = rate.wait_s(due_s - now_s)
        if wait_s > 0:
            raise RateLimited(
                f"more than {rate.per_s:g} uploads and erasures a second came for this owner",
                expected=f"at most {rate.per_s:g} a second, or {rate.burst} at once after a pause",
                retry_after_s=wait_s,
            )
        if len(self._due_s) >= _MAX_OWNERS:
            self._due_s.clear()
        self._due_s[caller.owner] = due_s + 1 / rate.per_s
