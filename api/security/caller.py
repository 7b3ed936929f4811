"""Caller of the current request, which `api.security.keys` finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import request

from inference.access import ANYBODY, Caller, Role

#: Keys of the WSGI environment: the caller, and a function that says whether its key is still valid.
CALLER = "inference.caller"
IS_STILL_VALID = "inference.key_is_still_valid"

#: Caller of operations that need no key, while the service has keys: it has no tasks.
NOBODY = Caller("", Role.PREDICT)


def caller() -> Caller:
    """The caller of the current request."""
    return caller_in(request.environ)


def caller_in(environ: dict[str, Any]) -> Caller:
    """The caller of a request; `ANYBODY` while the service has no keys."""
    found: Caller = environ.get(CALLER, ANYBODY)
    return found


def key_check() -> Callable[[], bool] | None:
    """Function that says whether the key of the current request is still valid; None while the service has no keys."""
    found: Callable[[], bool] | None = request.environ.get(IS_STILL_VALID)
    return found
