"""Networks by which clients are counted: a client of IPv6 has at least a /64 network of addresses."""

from __future__ import annotations

import ipaddress

_IPV6_PREFIX_LENGTH = 64

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def read_address(text: str) -> IpAddress | None:
    """Return the address in a text, in its IPv4 form if it has one; None for a text without an address, as of a Unix socket."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def network_of(address: IpAddress) -> str:
    """Return an IPv4 address, or the network of an IPv6 address."""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.ip_network((address, _IPV6_PREFIX_LENGTH), strict=False))
