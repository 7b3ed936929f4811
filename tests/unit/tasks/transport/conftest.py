"""Fixtures of the transport's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kombu import Connection

from tasks.transport.claiming import ClaimingTransport


@pytest.fixture
def url(redis_url: str) -> str:
    return redis_url.replace("unix://", "redis+socket://").replace("?db=", "?virtual_host=")


@pytest.fixture
def queue(key_prefix: str) -> str:
    return f"predict.{key_prefix}"


@pytest.fixture
def connect(url: str, key_prefix: str) -> Iterator[Callable[..., Connection]]:
    """Connections with an unacked hash of this test's own."""
    opened: list[Connection] = []

    def open_one(transport: Any = ClaimingTransport, **options: Any) -> Connection:
        own = {"unacked_key": f"{key_prefix}-unacked", "unacked_index_key": f"{key_prefix}-index"}
        opened.append(Connection(url, transport=transport, transport_options=own | options))
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.release()
