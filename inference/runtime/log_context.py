"""Context of log lines: the request, task, batch and model that the current thread or greenlet works on.

`log_context` binds values for a block; each line that is logged in it has them as fields, those of libraries too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

#: Id of the HTTP request that is being served; the answer has it in the header X-Request-ID. In workers and relays the request id
#: of the task, if it is not the task's own id.
logged_request_id: ContextVar[str] = ContextVar("request_id", default="")
logged_task_id: ContextVar[str] = ContextVar("task_id", default="")
#: Id of the batch request that the task came in.
logged_batch_id: ContextVar[str] = ContextVar("batch_id", default="")
#: Name of the model.
logged_model: ContextVar[str] = ContextVar("model", default="")
#: Owner of the key with which the request came, or of the task; empty without keys.
logged_owner: ContextVar[str] = ContextVar("owner", default="")
#: W3C trace id of the request's span, or of the task's context, 32 hexadecimal digits; empty without one.
logged_trace_id: ContextVar[str] = ContextVar("trace_id", default="")

#: Fields of a line, in their order.
LOG_FIELDS: dict[str, ContextVar[str]] = {
    "request_id": logged_request_id,
    "task_id": logged_task_id,
    "batch_id": logged_batch_id,
    "model": logged_model,
    "owner": logged_owner,
    "trace_id": logged_trace_id,
}


@contextmanager
def log_context(**fields: str) -> Iterator[None]:
    """Add fields to the lines of the block; an empty value leaves that of the surrounding block.

    Args:
        fields: by name, which is one of `LOG_FIELDS`.
    """
    tokens = [(LOG_FIELDS[name], LOG_FIELDS[name].set(value)) for name, value in fields.items() if value]
    try:
        yield
    finally:
        for variable, token in reversed(tokens):
            variable.reset(token)


def bind_log_fields(**fields: str) -> None:
    """Add fields to the lines of the current request, until `clear_log_fields` at its end."""
    for name, value in fields.items():
        LOG_FIELDS[name].set(value)


def clear_log_fields() -> None:
    """Remove all fields: the thread or greenlet goes on to something else."""
    for variable in LOG_FIELDS.values():
        variable.set("")


def current_log_fields() -> dict[str, str]:
    """Return the fields of a line that is logged now, without empty ones."""
    return {name: value for name, variable in LOG_FIELDS.items() if (value := variable.get())}
