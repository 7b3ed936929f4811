"""Requests through a reverse proxy, which describes them by X-Forwarded-* headers.

    peer in api.trusted_proxies?  ──no──▶ the headers are ignored
              │ yes
    X-Forwarded-For     last address that is not a trusted proxy  ▶ REMOTE_ADDR
    X-Forwarded-Proto   http or https                             ▶ wsgi.url_scheme
    X-Forwarded-Host    a host, with or without a port            ▶ HTTP_HOST
    X-Forwarded-Prefix  a path; by default that of SCRIPT_NAME    ▶ SCRIPT_NAME; removed from PATH_INFO

The last value of each header counts: the nearest proxy appended it. A value of another form is ignored.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_to_bytes

from werkzeug.routing import Map

Environ = dict[str, Any]
Wsgi = Callable[[Environ, Any], Iterable[bytes]]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: RFC 3986: segments of unreserved characters, percent-encoded bytes, sub-delimiters except the comma, ":" and "@".
_PREFIX = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+;=:@-]|%[0-9A-Fa-f]{2})+)+/?")
#: The decoded prefix: no character that ends a line or a segment, and no segment . or .. that leads out of it.
_DECODED_PREFIX = re.compile(rb"(?:/(?!\.{1,2}(?:/|$))[^/\\\x00-\x1f\x7f]+)+")
_MAX_PREFIX_CHARACTERS = 256
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")


class TrustedProxies:
    """WSGI middleware that applies the headers of trusted proxies.

    Args:
        proxies: networks of the trusted proxies.
        routes: the application's routes; a path that matches one of them already has no prefix.
    """

    def __init__(self, application: Wsgi, proxies: Iterable[str], routes: Map) -> None:
        self._application = application
        self._networks = [ipaddress.ip_network(proxy) for proxy in proxies]
        self._routes = routes
        self._is_trusted = lru_cache(maxsize=1024)(self._is_in_networks)

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        if self._is_trusted(environ.get("REMOTE_ADDR", "")):
            self._apply(environ)
        return self._application(environ, start_response)

    def _apply(self, environ: Environ) -> None:
        client = self._client(environ.get("HTTP_X_FORWARDED_FOR", ""))
        if client is not None:
            environ["REMOTE_ADDR"] = client
        scheme = _last(environ, "HTTP_X_FORWARDED_PROTO").lower()
        if scheme in ("http", "https"):
            environ["wsgi.url_scheme"] = scheme
        host = _last(environ, "HTTP_X_FORWARDED_HOST")
        if _HOST.fullmatch(host):
            environ["HTTP_HOST"] = host
        prefix = _prefix(_last(environ, "HTTP_X_FORWARDED_PREFIX") or _last(environ, "HTTP_SCRIPT_NAME"))
        if prefix:
            environ["SCRIPT_NAME"] = prefix
            self._strip(prefix, environ)

    def _client(self, forwarded_for: str) -> str | None:
        """The nearest address that is not a trusted proxy, else the farthest; None if there is no valid address."""
        client = None
        for text in reversed(forwarded_for.split(",")):
            address = _address(_without_port(text.strip()))
            if address is None:
                break
            client = str(address)
            if not self._is_trusted(client):
                break
        return client

    def _strip(self, prefix: str, environ: Environ) -> None:
        """Remove the prefix from the path if the proxy passes whole paths; a path without it already matches a route."""
        path = environ.get("PATH_INFO", "")
        if path != prefix and not path.startswith(f"{prefix}/"):
            return
        if not self._routes.bind("").test(path.encode("latin-1").decode("utf-8", "replace"), environ["REQUEST_METHOD"]):
            environ["PATH_INFO"] = path[len(prefix) :] or "/"

    def _is_in_networks(self, peer: str) -> bool:
        address = _address(peer)
        return address is not None and any(address in network for network in self._networks)


def _last(environ: Environ, key: str) -> str:
    value: str = environ.get(key, "")
    return value.rpartition(",")[2].strip()


def _prefix(value: str) -> str:
    """The prefix as WSGI represents it: decoded, in Latin-1; empty if it is not a valid path."""
    if len(value) > _MAX_PREFIX_CHARACTERS or not _PREFIX.fullmatch(value):
        return ""
    decoded = unquote_to_bytes(value.removesuffix("/"))
    return decoded.decode("latin-1") if _DECODED_PREFIX.fullmatch(decoded) else ""


def _address(text: str) -> Address | None:
    """Read an address; an IPv4-mapped IPv6 address, as sockets for both families have it, becomes the IPv4 address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _without_port(text: str) -> str:
    """Remove the port: some proxies write 192.0.2.1:4711 and [2001:db8::1]:4711."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    host, _, port = text.partition(":")
    return host if port.isdigit() and ":" not in port else text
