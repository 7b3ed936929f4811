"""Headers `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10): limits of the owner, and their rests."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flask import request

from api.security.caller import caller_in
from inference.access import Limits, OwnerUse

RATE_LIMIT, RATE_LIMIT_POLICY = "RateLimit", "RateLimit-Policy"

#: Key of the WSGI environment: the use of the owner after this request.
_USE = "inference.owner_use"
_DAY_S = 86_400
_REFUSED = "429"


@dataclass(frozen=True)
class _Quota:
    """Limit as the headers show it."""

    policy: str
    quota: int
    left: int
    #: other than requests; empty for requests
    unit: str = ""
    #: seconds for which the quota is; None: not for a time
    window_s: int | None = None
    #: seconds until all of it is there again
    reset_s: float | None = None


def note_use(use: OwnerUse | None) -> None:
    """Let the answer of the current request have the headers; without an owner there is no use, and there are none."""
    if use is not None:
        request.environ[_USE] = use


def rate_limit_headers(environ: dict[str, Any], status: str) -> list[tuple[str, str]]:
    """Return the headers of an answer; none if no use was noted, its owner has no limit, or the request failed in another way.

    Args:
        status: status line.
    """
    use = environ.get(_USE)
    if use is None or not status.startswith(("2", _REFUSED)):
        return []
    quotas = list(_quotas(caller_in(environ).limits, use))
    if not quotas:
        return []
    return [
        (RATE_LIMIT_POLICY, ", ".join(map(_policy, quotas))),
        (RATE_LIMIT, ", ".join(map(_state, quotas))),
    ]


def _quotas(limits: Limits, use: OwnerUse) -> Iterator[_Quota]:
    rate = limits.rate
    if rate is not None:
        window_s = max(1, math.ceil(rate.burst / rate.per_s))
        yield _Quota("requests", rate.burst, rate.left(use.due_in_s), window_s=window_s, reset_s=use.due_in_s)
    for policy, quota, used, unit in (
        ("images", limits.images_per_day, use.images_today, "images"),
        ("bytes", limits.bytes_per_day, use.bytes_today, "content-bytes"),
    ):
        if quota is not None:
            yield _Quota(policy, quota, max(0, quota - used), unit, _DAY_S, use.day_ends_in_s)
    if limits.waiting_tasks is not None:
        left = max(0, limits.waiting_tasks - use.open_tasks)
        yield _Quota("tasks", limits.waiting_tasks, left, "tasks")


def _policy(quota: _Quota) -> str:
    unit = f';qu="{quota.unit}"' if quota.unit else ""
    window = f";w={quota.window_s}" if quota.window_s else ""
    return f'"{quota.policy}";q={quota.quota}{unit}{window}'


def _state(quota: _Quota) -> str:
    reset = f";t={math.ceil(quota.reset_s)}" if quota.reset_s is not None else ""
    return f'"{quota.policy}";r={quota.left}{reset}'
