"""Fixtures of the client's tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from rohe_inference import RetryPolicy
from support.client_callers import AsyncCaller, Caller, MakeCaller, SyncCaller

#: Pauses of a few milliseconds; gives up long before a test is over.
QUICK = RetryPolicy(max_elapsed_s=10, first_delay_s=0.001, max_delay_s=0.01)


@pytest.fixture(params=[SyncCaller, AsyncCaller], ids=["sync", "async"])
def make_caller(request: pytest.FixtureRequest) -> Iterator[MakeCaller]:
    """Makes a client of one kind for an address."""
    with ExitStack() as stack:

        def make(url: str, **options: Any) -> Caller:
            caller: Caller = request.param(url, **{"retries": QUICK, "timeout_s": 10.0, **options})
            stack.callback(caller.close)
            return caller

        yield make
