"""Who calls the service and what they may do: roles, owners, limits.

An owner is a person, a team or a program that tasks belong to; it may have several keys. Without keys everything belongs to the
owner '' and everybody may do everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

#: Owner of tasks that plain Celery clients send without naming one, when the service has keys.
CELERY_OWNER = "celery"
#: An owner's name is a part of Redis keys, headers and log lines.
OWNER_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}"


class Role(StrEnum):
    """Rights of a key. Each includes what its comment says, and nothing else."""

    #: accept, list, cancel, replay and erase the tasks of its owner
    PREDICT = "predict"
    #: status, metrics, and all tasks, without changing any
    READ = "read"
    #: everything, for the tasks of all owners too
    ADMIN = "admin"


@dataclass(frozen=True)
class Limits:
    """Limits of an owner's use; None: no limit."""

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


@dataclass(frozen=True)
class Caller:
    """Caller of a request, as its key says."""

    #: '' without keys
    owner: str
    role: Role
    #: id of the key; '' without one
    key_id: str = ""
    limits: Limits = Limits()

    @property
    def sees_all(self) -> bool:
        """Whether the caller may read the tasks of every owner."""
        return self.role in (Role.READ, Role.ADMIN)

    @property
    def is_admin(self) -> bool:
        return self.role is Role.ADMIN


#: Caller of every request while the service has no keys.
ANYBODY = Caller("", Role.ADMIN)
