"""The limit for the connections of one address."""

from __future__ import annotations

from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from api.server import connections
from api.server.connection_counts import ConnectionCounts


def opened(counts: ConnectionCounts, peers: list[str]) -> list[bool]:
    """Open a connection of each peer; return which ones the counts allowed."""
    with ExitStack() as stack:
        return [stack.enter_context(counts.counted(peer)) for peer in peers]


def test_one_address_has_so_many_and_others_have_theirs() -> None:
    counts = ConnectionCounts(2, ())
    assert opened(counts, ["192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2"]) == [True, True, False, True]


def test_a_closed_connection_makes_room() -> None:
    counts = ConnectionCounts(1, ())
    for _ in range(3):
        assert opened(counts, ["192.0.2.1", "192.0.2.1"]) == [True, False]
    assert not counts._counts, "the counts of addresses without connections are kept"


def test_addresses_of_one_client_count_together() -> None:
    counts = ConnectionCounts(1, ())
    assert opened(counts, ["2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"]) == [True, False, True]
    assert opened(counts, ["192.0.2.1", "::ffff:192.0.2.1"]) == [True, False]


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.1.2.3", "fd00::7", "", "unix"])
def test_proxies_and_loopback_have_no_limit(peer: str) -> None:
    counts = ConnectionCounts(1, ("10.0.0.0/8", "fd00::/8"))
    assert opened(counts, [peer] * 3) == [True] * 3


def test_zero_is_no_limit() -> None:
    assert opened(ConnectionCounts(0, ()), ["192.0.2.1"] * 3) == [True] * 3


def test_a_connection_over_the_limit_is_closed_unserved(monkeypatch: pytest.MonkeyPatch) -> None:
    served, closed = [], []
    monkeypatch.setattr(connections, "Connection", lambda *_: SimpleNamespace(serve=lambda: served.append(worker._serve)))
    worker: Any = SimpleNamespace(counts=ConnectionCounts(1, ()), _keep_room=lambda: None)
    worker._serve = lambda client: connections.HttpWorker._serve(worker, None, client, ("192.0.2.1", 1))
    client: Any = SimpleNamespace(close=lambda: closed.append(1))
    with worker.counts.counted("192.0.2.1"):
        worker._serve(client)
    assert (len(served), len(closed)) == (0, 1)
    worker._serve(client)
    assert (len(served), len(closed)) == (1, 1)
