"""Open connections of each address, so that one client cannot take all of them."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache

from api.security.client_networks import network_of, read_address


class ConnectionCounts:
    """Counts the open connections of each address; those of IPv6 are counted by their /64 network.

    Args:
        limit: maximum connections of one address; 0: no limit.
        trusted: networks of proxies, whose connections are those of many clients, as those of loopback addresses may be.
    """

    def __init__(self, limit: int, trusted: Iterable[str]) -> None:
        self._limit = limit
        self._trusted = [ipaddress.ip_network(network) for network in trusted]
        self._counts: Counter[str] = Counter()
        #: cached, since most connections come from few addresses
        self._client_of = lru_cache(maxsize=4096)(self._find_client)

    @contextmanager
    def counted(self, peer: str) -> Iterator[bool]:
        """Count a connection while the context lasts; yields whether the address may have it.

        Args:
            peer: the address of the other end; empty for a Unix socket.
        """
        client = self._client_of(peer) if self._limit else ""
        if not client:
            yield True
            return
        if self._counts[client] >= self._limit:
            yield False
            return
        self._counts[client] += 1
        try:
            yield True
        finally:
            self._counts[client] -= 1
            if not self._counts[client]:
                del self._counts[client]

    def _find_client(self, peer: str) -> str:
        """Return the text by which a peer is counted; empty if it has no limit."""
        address = read_address(peer)
        if address is None or address.is_loopback or any(address in network for network in self._trusted):
            return ""
        return network_of(address)
