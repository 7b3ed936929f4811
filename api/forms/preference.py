"""Time that a request waits for its tasks."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from flask import Request, request

from api.forms.options import number_in, read_mode
from inference.errors import InvalidRequest, shown

#: The sweeper ends a task within this time after its deadline; a synchronous request waits for that answer.
EXPIRY_GRACE_S = 5.0

_WAIT = re.compile(r"wait\s*=\s*\"?([0-9]{1,9}(?:\.[0-9]{1,9})?)\"?")


@dataclass
class Preference:
    """Time that the client wants to wait."""

    #: seconds: None waits until the deadline, 0 answers 202 at once
    wait_s: float | None = None
    #: the preferences of the `Prefer` header that were applied
    applied: str = ""


def asked_wait_s(max_wait_s: float) -> float:
    """Read `?wait=N` of a GET, in seconds: 0 without it, at most `max_wait_s`. Raises InvalidRequest."""
    text = request.args.get("wait")
    if text is None:
        return 0.0
    wait_s = number_in(text)
    if not 0 <= wait_s < math.inf:
        raise InvalidRequest(f"wait is not a number of seconds: {shown(text)}", field="wait", expected="0 or more")
    return min(wait_s, max_wait_s)


def read_preference(request: Request, mode: Any, max_wait_s: float) -> Preference:
    """Read `Prefer: respond-async` and `Prefer: wait=N` (RFC 7240); the option `mode=async` means `respond-async`.

    Raises:
        InvalidRequest: there is no such mode, or the mode is sync and the header has `respond-async`.
    """
    mode = read_mode(mode)
    parts = [part for line in request.headers.getlist("Prefer") for part in line.split(",")]
    preferred = [part.partition(";")[0].strip().lower() for part in parts]  # a preference may have parameters
    respond_async = "respond-async" in preferred
    if respond_async and mode == "sync":
        raise InvalidRequest("mode is sync, and the header Prefer says respond-async", field="mode", expected="one of the two")
    applied = ["respond-async"] if respond_async else []
    wait = next(filter(None, map(_WAIT.fullmatch, preferred)), None)
    if wait is None:
        return Preference(0.0 if respond_async or mode == "async" else None, ", ".join(applied))
    wait_s = min(float(wait.group(1)), max_wait_s)
    return Preference(wait_s, ", ".join([*applied, f"wait={wait_s:g}"]))
