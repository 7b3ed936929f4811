"""Lines of the audit log about the current request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import request

from api.security.caller import caller
from inference.errors import InferenceError
from inference.runtime.audit import audit, caller_identity


@contextmanager
def audited(what: str, target: str = "") -> Iterator[dict[str, Any]]:
    """Log the outcome of the block as an action of the caller.

    Args:
        what: kind of the action, such as `command`.
        target: the model or task that it is about.

    Yields:
        members of the line, to which the block may add, and of which it may change `target`.
    """
    line: dict[str, Any] = {"target": target, "outcome": InferenceError.code}
    try:
        yield line
        line["outcome"] = "done"
    except InferenceError as error:
        line["outcome"] = error.code
        raise
    finally:
        audit(what, who=caller_identity(caller()), source=request.environ.get("REMOTE_ADDR", ""), **line)
