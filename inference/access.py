"""Callers of the service, and their rights: roles, owners, limits.

An owner is a person, a team or a program that tasks belong to; it may have several keys. Without keys everything belongs to the
owner '' and everybody may do everything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

#: Owner of tasks that plain Celery clients send without naming one, when the service has keys.
CELERY_OWNER = "celery"
#: An owner's name is a part of Redis keys, headers and log lines.
OWNER_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}"


class Role(StrEnum):
    """Rights of a key: `predict` for the tasks of its owner, `read` to see everything, `admin` for everything."""

    #: accept, list, cancel, replay and erase the tasks of its owner
    PREDICT = "predict"
    #: status, metrics, and all tasks, without changing any
    READ = "read"
    #: everything, for the tasks of all owners too
    ADMIN = "admin"


@dataclass(frozen=True)
class RateLimit:
    """Requests a second, counted by GCRA: each request fills the space of 1 / `per_s` seconds, of which `burst` may wait."""

    per_s: float
    #: requests that may come at once after a pause
    burst: int

    def left(self, due_in_s: float) -> int:
        """Return how many requests may come at once.

        Args:
            due_in_s: seconds until the space of all earlier requests is over, as in `OwnerUse`.
        """
        return max(0, math.floor(self.burst - due_in_s * self.per_s + 1e-6))

    def wait_s(self, due_in_s: float) -> float:
        """Return the seconds until the next request may come."""
        return max(0.0, due_in_s - (self.burst - 1) / self.per_s)


@dataclass(frozen=True)
class OwnerUse:
    """Use of the service by an owner. A day is one of UTC."""

    #: seconds until the rate limit remembers no earlier request
    due_in_s: float
    images_today: int
    #: bytes of the images of today
    bytes_today: int
    #: tasks accepted and not ended
    open_tasks: int
    #: seconds until the day ends
    day_ends_in_s: float


@dataclass(frozen=True)
class Limits:
    """Limits of an owner's use; None: no limit. A key's limits apply to the use of all keys of its owner together."""

    requests_per_s: float | None = None
    #: requests that may come at once after a pause; default: those of one second
    burst: int | None = None
    images_per_day: int | None = None
    bytes_per_day: int | None = None
    #: tasks accepted and not ended
    waiting_tasks: int | None = None
    max_deadline_s: float | None = None
    #: 0 to 9
    max_priority: int | None = None

    @property
    def rate(self) -> RateLimit | None:
        if not self.requests_per_s:
            return None
        return RateLimit(self.requests_per_s, self.burst or max(1, math.ceil(self.requests_per_s)))


NO_LIMITS = Limits()


@dataclass(frozen=True)
class Caller:
    """Caller of a request, as its key says."""

    #: '' without keys
    owner: str
    role: Role
    #: id of the key; '' without one
    key_id: str = ""
    limits: Limits = NO_LIMITS

    @property
    def sees_all(self) -> bool:
        """Whether the caller may read the tasks of every owner."""
        return self.role in (Role.READ, Role.ADMIN)

    @property
    def is_admin(self) -> bool:
        return self.role is Role.ADMIN


#: Caller of every request while the service has no keys.
ANYBODY = Caller("", Role.ADMIN)
