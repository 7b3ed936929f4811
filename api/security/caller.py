"""Caller of the current request, which `api.security.keys` finds."""

from __future__ import annotations

from typing import Any

from flask import request

from inference.access import ANYBODY, Caller

#: Key of the WSGI environment.
CALLER = "inference.caller"


def caller() -> Caller:
    """The caller of the current request."""
    return caller_in(request.environ)


def caller_in(environ: dict[str, Any]) -> Caller:
    """The caller of a request; `ANYBODY` while the service has no keys."""
    found: Caller = environ.get(CALLER, ANYBODY)
    return found
