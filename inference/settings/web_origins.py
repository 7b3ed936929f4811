"""Checks of names, networks and origins that the API trusts: `api.allowed_hosts`, `api.cors_origins`, `api.trusted_proxies`."""

from __future__ import annotations

import ipaddress
import re

from inference.settings.http_address import is_address, is_host_name, normal_host

#: Matches every host, or every origin.
ANY = "*"
#: IPv4 addresses in the form in which a socket for both families shows them.
_IPV4_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
#: An origin, also of browser extensions and applications in a browser's engine, such as chrome-extension://ID.
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[^/?#@:\[\]\s]+)(?::([0-9]{1,5}))?")
DEFAULT_PORTS = {"http": "80", "https": "443"}


def network(text: str) -> str:
    """Return an address or network as `ipaddress` writes it; IPv4 mapped into IPv6 becomes IPv4. Raises ValueError."""
    try:
        found = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError as error:
        raise ValueError("must be an address or a network, such as 10.0.0.5, 10.0.0.0/8 or fd00::/8") from error
    if isinstance(found, ipaddress.IPv6Network) and found.subnet_of(_IPV4_MAPPED):
        return f"{found.network_address.ipv4_mapped}/{found.prefixlen - _IPV4_MAPPED.prefixlen}"
    return str(found)


def allowed_host(text: str) -> str:
    """Return an entry of `api.allowed_hosts`, with the name as `normal_host` writes it. Raises ValueError.

    `*.NAME` matches all names below NAME, `.NAME` matches NAME too.
    """
    if text == ANY:
        return text
    mark = next((mark for mark in ("*.", ".") if text.startswith(mark)), "")
    name = text.removeprefix(mark)
    bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    if not (is_host_name(name) if mark else is_host_name(name) or is_address(bare)):
        raise ValueError("must be a host name or an address without a port, *.NAME for all names below NAME, or * for any host")
    return mark + normal_host(bare)


def url_host(text: str) -> str:
    """Return a host that URLs of clients may have: a name or address, or `*.NAME` for all names below it. Raises ValueError."""
    host = allowed_host(text)
    if host == ANY or host.startswith("."):
        raise ValueError("must be a host name or an address without a port, or *.NAME for all names below NAME")
    return host


def cors_origin(text: str) -> str:
    """Return an entry of `api.cors_origins` as browsers send it in the header Origin. Raises ValueError."""
    if text == ANY:
        return text
    found = _ORIGIN.fullmatch(text.lower().removesuffix("/"))
    if found is None:
        raise ValueError("must be an origin, SCHEME://HOST or SCHEME://HOST:PORT, such as https://app.example.org, or *")
    scheme, host, port = found.groups()
    if scheme in DEFAULT_PORTS and not host.startswith("[") and not is_host_name(host):
        raise ValueError(f"{host} is not a host name")
    suffix = "" if port in (None, DEFAULT_PORTS.get(scheme)) else f":{port}"
    return f"{scheme}://{host if host.isascii() else normal_host(host)}{suffix}"
