"""Keep Flower's pages behind its password.

Open are `/static` and `/healthcheck`, which says "OK" to a container's health check.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def protect_pages() -> None:
    """Ask for the password at `/metrics` too, and answer strange credentials with 401: Flower's 500 shows its code."""
    from flower.views import BaseHandler  # type: ignore[import-untyped] # noqa: PLC0415 a worker needs no Flower
    from flower.views.monitor import Metrics  # type: ignore[import-untyped] # noqa: PLC0415
    from tornado.web import HTTPError, authenticated  # noqa: PLC0415

    read_user = BaseHandler.get_current_user

    def get_current_user(handler: Any) -> Any:
        try:
            return read_user(handler)
        except TypeError as error:  # of hmac.compare_digest: not ASCII
            raise HTTPError(401) from error

    BaseHandler.get_current_user = get_current_user
    Metrics.get = authenticated(Metrics.get)


def login_problem(logins: Sequence[str]) -> str | None:
    """Why these `NAME:PASSWORD` would keep nobody out, or nobody in; None: they are as they should be."""
    if not logins:
        return "is needed: whoever reaches Flower can cancel tasks and stop workers"
    for login in logins:
        name, _, password = login.partition(":")
        if not (name and password and login.isascii()):
            return "must have a name and a password in ASCII; several logins have ',' between them"
    return None
