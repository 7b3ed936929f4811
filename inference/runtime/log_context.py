"""Context of log lines: what the current thread or greenlet works on."""

from __future__ import annotations

from contextvars import ContextVar

#: Id of the HTTP request that is being served; the answer has it in the header X-Request-ID.
logged_request_id: ContextVar[str] = ContextVar("request_id", default="")

#: Owner of the key with which that request came, or of the task; empty without keys.
logged_owner: ContextVar[str] = ContextVar("owner", default="")

#: W3C trace id, 32 hexadecimal digits; empty while traces are off.
logged_trace_id: ContextVar[str] = ContextVar("trace_id", default="")
