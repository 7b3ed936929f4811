"""W3C Trace Context: what is taken from a caller, and what is passed on."""

from __future__ import annotations

from typing import Any

import pytest

from inference.tracing.context import is_sampled, read_context, stored_context, trace_headers, trace_id_of

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


@pytest.mark.parametrize(
    ("traceparent", "tracestate", "context"),
    [
        (PARENT, None, PARENT),
        (f" {PARENT}\t", "", PARENT),
        (PARENT, "vendor=a value,other=1", f"{PARENT} vendor=a value,other=1"),
        (PARENT, "x" * 513, PARENT),
        (PARENT, "not\x00printable", PARENT),
        (PARENT, b"bytes", PARENT),
        (f"cc-{TRACE_ID}-{SPAN_ID}-01-what-the-future-brings", None, PARENT),
        (f"cc-{TRACE_ID}-{SPAN_ID}-01", None, PARENT),
        (f"00-{TRACE_ID}-{SPAN_ID}-00", None, f"00-{TRACE_ID}-{SPAN_ID}-00"),
    ],
)
def test_a_valid_context_is_taken(traceparent: str, tracestate: Any, context: str) -> None:
    assert read_context(traceparent, tracestate) == context
    assert trace_id_of(context) == TRACE_ID
    assert trace_headers(context)["traceparent"] == context[:55]


@pytest.mark.parametrize(
    "traceparent",
    [
        None,
        7,
        ["00"],
        "",
        "nonsense",
        PARENT.upper(),
        f"{PARENT}-more",
        f"{PARENT}, {PARENT}",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID[1:]}-{SPAN_ID}-01",
        f"cc-{TRACE_ID}-{SPAN_ID}-01.more",
    ],
)
def test_an_invalid_context_is_none(traceparent: Any) -> None:
    assert read_context(traceparent, "vendor=value") == ""


@pytest.mark.parametrize("context", ["", PARENT, f"{PARENT} vendor=a value,other=1"])
def test_the_context_of_a_record_is_that_which_was_stored(context: str) -> None:
    assert stored_context(context.encode()) == context


@pytest.mark.parametrize("field", [None, b"nonsense", PARENT[:-1].encode(), b"02-newer", b"\xff\xfe", f"{PARENT}-zz".encode()])
def test_a_record_whose_context_has_an_unknown_form_has_none(field: bytes | None) -> None:
    """Otherwise each worker that leases its task, and the relay that delivers its result, would fail on it."""
    assert stored_context(field) == ""


def test_headers_have_what_came() -> None:
    assert trace_headers("") == {}
    assert trace_headers(PARENT) == {"traceparent": PARENT}
    assert trace_headers(f"{PARENT} a=b, c=d") == {"traceparent": PARENT, "tracestate": "a=b, c=d"}


def test_the_flag_tells_whether_the_caller_keeps_the_trace() -> None:
    flags = {"00": False, "01": True, "02": False, "03": True, "ff": True}
    assert {flag: is_sampled(f"{PARENT[:-2]}{flag}") for flag in flags} == flags
    assert not is_sampled("")
