"""How long a request waits for its tasks."""

from __future__ import annotations

import math

from flask import request

from api.context import api
from inference.errors import InvalidRequest, shown

#: The sweeper ends a task within this after its deadline; a synchronous caller waits for that answer.
EXPIRY_GRACE_S = 5.0


def asked_wait_s() -> float:
    """`?wait=N` of a GET, 0 without it. Raises InvalidRequest."""
    text = request.args.get("wait")
    if text is None:
        return 0.0
    try:
        wait_s = float(text)
    except ValueError:
        wait_s = math.nan
    if not 0 <= wait_s < math.inf:
        raise InvalidRequest(f"wait is not a number of seconds: {shown(text)}", field="wait", expected="0 or more")
    return min(wait_s, api().services.settings.api.max_wait_s)
