"""Role that an operation needs."""

from __future__ import annotations

from enum import StrEnum

from inference.access import Role


class NeededRole(StrEnum):
    """Keys with which an operation may be called."""

    #: no key is needed
    NONE = "none"
    #: any key
    ANY = "any"
    READ = "read"
    PREDICT = "predict"
    ADMIN = "admin"

    @property
    def roles(self) -> tuple[Role, ...]:
        """Roles of the keys: `admin` includes the others."""
        return _ROLES[self]


_ROLES = {
    NeededRole.NONE: tuple(Role),
    NeededRole.ANY: tuple(Role),
    NeededRole.READ: (Role.READ, Role.ADMIN),
    NeededRole.PREDICT: (Role.PREDICT, Role.ADMIN),
    NeededRole.ADMIN: (Role.ADMIN,),
}
