"""Limits of owners in the form that the accept script reads, and their use as it answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import orjson

from inference.access import Limits, OwnerUse
from inference.errors import QuotaExceeded, RateLimited

#: Seconds after which a client tries again that has too many open tasks: it is not known when one ends.
_TASKS_RETRY_AFTER_S = 1.0


@lru_cache(maxsize=1024)
def limits_field(limits: Limits) -> bytes:
    """Return the argument `limits`; empty without any that the task store counts."""
    rate = limits.rate
    found = {
        "interval": 1000 / rate.per_s if rate else None,
        "burst": rate.burst if rate else None,
        "images_per_day": limits.images_per_day,
        "bytes_per_day": limits.bytes_per_day,
        "waiting_tasks": limits.waiting_tasks,
    }
    counted = {name: value for name, value in found.items() if value is not None}
    return orjson.dumps(counted) if counted else b""


def use_from(answer: Sequence[int]) -> OwnerUse:
    """Return the use of an owner with limits from the numbers at the end of an answer."""
    due_ms, images, image_bytes, tasks, day_ms = answer
    return OwnerUse(due_ms / 1000, images, image_bytes, tasks, day_ms / 1000)


def limit_error(reached: str, limits: Limits, use: OwnerUse) -> RateLimited | QuotaExceeded:
    """Return the error for a limit that does not allow a request.

    Args:
        reached: name of the limit, as in `Limits`.
    """
    error = _error(reached, limits, use)
    error.use = use
    return error


def _error(reached: str, limits: Limits, use: OwnerUse) -> RateLimited | QuotaExceeded:
    if reached == "requests_per_s" and limits.rate is not None:
        rate = limits.rate
        return RateLimited(
            f"more than {rate.per_s:g} requests a second came for this owner",
            expected=f"at most {rate.per_s:g} requests a second, or {rate.burst} at once after a pause",
            retry_after_s=rate.wait_s(use.due_in_s),
        )
    if reached == "waiting_tasks":
        return QuotaExceeded(
            f"{use.open_tasks} tasks of this owner have not ended",
            expected=f"at most {limits.waiting_tasks} tasks that have not ended",
            retry_after_s=_TASKS_RETRY_AFTER_S,
        )
    unit, used = ("images", use.images_today) if reached == "images_per_day" else ("bytes", use.bytes_today)
    return QuotaExceeded(
        f"the request exceeds the {unit} of the day: {used} are used up",
        expected=f"at most {getattr(limits, reached)} {unit} a day; the day ends at 00:00 UTC",
        retry_after_s=use.day_ends_in_s,
    )
