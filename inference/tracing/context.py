"""Trace context: the place of a task in its caller's trace (W3C Trace Context, https://www.w3.org/TR/trace-context/).

A context is one text in records and functions: the value of `traceparent`, and behind a space that of `tracestate` if the caller
sent one. The empty text means that there is no context.

    00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
    version  trace id (32)              span id (16)     flags; 01: the trace is kept
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import Any

#: Later versions may have more after the flags; an id of zeros is not valid.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}(-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(-.*)?")
#: Printable ASCII; a longer value is dropped, as the standard allows.
_TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")
_SAMPLED = 0x01

#: Context of the innermost active span of this thread or greenlet.
active_context: ContextVar[str] = ContextVar("trace_context", default="")


def read_context(traceparent: Any, tracestate: Any = None) -> str:
    """Return the context of two headers; empty if `traceparent` is not valid. The values may be of any type."""
    if not isinstance(traceparent, str):
        return ""
    text = traceparent.strip()
    found = _TRACEPARENT.fullmatch(text)
    if found is None or (found[2] and text.startswith("00")):
        return ""
    own = f"00{found[1]}"
    if isinstance(tracestate, str) and _TRACESTATE.fullmatch(tracestate) and (state := tracestate.strip()):
        return f"{own} {state}"
    return own


def stored_context(field: bytes | None) -> str:
    """Return the context in the field of a record; empty if there is none, or it has a form that this version does not know."""
    return read_context(*field.decode("latin-1").split(" ", 1)) if field else ""


def trace_headers(context: str) -> dict[str, str]:
    """Return `traceparent`, and `tracestate` if there is one; nothing without a context."""
    traceparent, _, tracestate = context.partition(" ")
    headers = {"traceparent": traceparent} if traceparent else {}
    return headers | {"tracestate": tracestate} if tracestate else headers


def trace_id_of(context: str) -> str:
    """Return the trace id, 32 hexadecimal digits; empty without a context."""
    return context[3:35]


def is_sampled(context: str) -> bool:
    """Return whether the trace is kept: its beginner decided that."""
    return bool(context) and bool(int(context[53:55], 16) & _SAMPLED)
