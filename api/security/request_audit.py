"""Lines of the audit log about the current request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import request

from api.security.caller import caller
from inference.errors import InferenceError
from inference.runtime import audit


@contextmanager
def audited(what: str, target: str = "") -> Iterator[dict[str, Any]]:
    """Log the outcome of the block as an action of the caller.

    Args:
        what: kind of the action, such as `command`.
        target: the model or task that it is about.

    Yields:
        members of the line, to which the block may add, and of which it may change `target`.
    """
    source = request.environ.get("REMOTE_ADDR", "")
    with audit.audited(what, target, who=audit.caller_identity(caller()), source=source) as line:
        line["outcome"] = InferenceError.code  # as the client is told of any other exception
        yield line
