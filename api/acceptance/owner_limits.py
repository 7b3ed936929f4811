"""Limits of owners before anything of a request is stored; the task store counts their use."""

from __future__ import annotations

import time
from collections.abc import Callable

from api.security.rate_limit import note_use
from inference.access import Caller, OwnerUse
from inference.errors import InferenceError, QuotaExceeded, RateLimited

#: Owners whose last refusal is remembered.
_MAX_OWNERS = 1000


class OwnerLimits:
    """Remembers until when an owner's rate limit takes no request: one that comes before is refused without the task store.

    Without this a client that repeats its requests at once would cost nearly as much as one whose requests are accepted.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: by key, the last refusal, and the time at which a request may come
        self._refusals: dict[tuple[str, str], tuple[RateLimited, float]] = {}

    def check(self, caller: Caller) -> None:
        """Raise RateLimited if the owner's rate limit surely does not allow another request now."""
        if not self._refusals:
            return
        refusal, until_s = self._refusals.get((caller.owner, caller.key_id), (None, 0.0))
        left_s = until_s - self._clock()
        if refusal is None or left_s <= 0:
            return
        again = RateLimited(refusal.detail, expected=refusal.expected, retry_after_s=left_s)
        if refusal.use is not None:
            again.use = _later(refusal.use, (refusal.retry_after_s or 0.0) - left_s)
        note_use(again.use)
        raise again

    def note(self, caller: Caller, error: InferenceError) -> None:
        """Note the refusal of a request by the task store."""
        if not isinstance(error, RateLimited | QuotaExceeded):
            return
        note_use(error.use)
        if isinstance(error, RateLimited) and error.retry_after_s:
            if len(self._refusals) >= _MAX_OWNERS:
                self._refusals.clear()
            self._refusals[caller.owner, caller.key_id] = (error, self._clock() + error.retry_after_s)


def _later(use: OwnerUse, seconds: float) -> OwnerUse:
    """Return the use after a time in which nothing was accepted."""
    due_in_s = max(0.0, use.due_in_s - seconds)
    return OwnerUse(due_in_s, use.images_today, use.bytes_today, use.open_tasks, use.day_ends_in_s - seconds)
