"""Password protection of Flower's pages.

Without a password a client can get `/static` and `/healthcheck`, which answers "OK" to a container's health check.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def protect_pages() -> None:
    """Require the password at `/metrics` too, and answer invalid credentials with 401: Flower's 500 would show source code."""
    from flower.views import BaseHandler  # type: ignore[import-untyped] # noqa: PLC0415 a worker needs no Flower
    from flower.views.monitor import Metrics  # type: ignore[import-untyped] # noqa: PLC0415
    from tornado.web import HTTPError, authenticated  # noqa: PLC0415

    read_user = BaseHandler.get_current_user

    def get_current_user(handler: Any) -> Any:
        try:
            return read_user(handler)
        except TypeError as error:  # from hmac.compare_digest, if the text is not ASCII
            raise HTTPError(401) from error

    BaseHandler.get_current_user = get_current_user
    Metrics.get = authenticated(Metrics.get)


def login_problem(logins: Sequence[str]) -> str | None:
    """Return the reason why these `NAME:PASSWORD` logins are not usable or not safe; None if they are valid."""
    if not logins:
        return "is needed: any client that reaches Flower can cancel tasks and stop workers"
    for login in logins:
        name, _, password = login.partition(":")
        if not (name and password and login.isascii()):
            return "must be NAME:PASSWORD in ASCII; separate several logins with ','"
    return None
