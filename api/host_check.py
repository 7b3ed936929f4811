"""Which hosts requests may be for: a page whose name resolves to our address (DNS rebinding) is of our origin to its browser.

Host: NAME[:PORT] ──malformed──▶ 400
        │ else
        ├─ a loopback name or address, the address that is listened on ──▶ served
        ├─ in api.allowed_hosts                                         ──▶ served
        ├─ any address, where every interface is listened on            ──▶ served: only names can be rebound
        ├─ a name that no public DNS has, unless only loopback is
        │  listened on: this machine's, api, gpu.local, x.internal      ──▶ served: nor can these
        └─ any other                                                    ──▶ 421
"""

from __future__ import annotations

import re
import socket
from functools import lru_cache
from typing import Any

from inference.errors import InferenceError, InvalidRequest, MisdirectedRequest, shown
from inference.http_address import addresses_of, is_address, is_loopback_only, is_wildcard, normal_host
from inference.settings import ApiSettings
from inference.settings.web_origins import ANY

#: RFC 9110, section 7.2: a host of RFC 3986 and a port; neither user nor path.
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._~!$&'()*+,;=%-]+))(?::[0-9]{0,5})?")
#: A request line's URL in absolute form, up to the end of its authority.
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")
_LOOPBACK_NAME = "localhost"


class HostCheck:
    """Checks the hosts that a request names.

    Args:
        settings: `host` is what is listened on, `allowed_hosts` further names.
    """

    def __init__(self, settings: ApiSettings) -> None:
        entries, addresses = settings.allowed_hosts, addresses_of(settings.host)
        self._is_off = ANY in entries
        self._takes_addresses = is_wildcard(addresses)
        self._names = {normal_host(settings.host), *addresses, *(entry.removeprefix(".") for entry in entries)}
        self._parents = tuple(entry.removeprefix("*") for entry in entries if entry.startswith((".", "*.")))
        self._takes_private_names = not is_loopback_only(addresses)
        if self._takes_private_names:
            self._names.add(normal_host(socket.gethostname()))
        self._error = lru_cache(maxsize=1024)(self._checked)

    def error(self, environ: dict[str, Any]) -> InferenceError | None:
        """What is wrong with the request's host; None where it is served.

        A request of HTTP/1.0 without the header is served: no browser sends one.
        """
        if self._is_off:
            return None
        uri = environ.get("RAW_URI", "/")
        if not uri.startswith("/") and (absolute := _ABSOLUTE.match(uri)) and (error := self._error(absolute[1])):
            return error
        host = environ.get("HTTP_HOST")
        if host is None:
            is_old = environ.get("SERVER_PROTOCOL") == "HTTP/1.0"
            return None if is_old else InvalidRequest("the request has no Host header", field="Host")
        return self._error(host)

    def _checked(self, host: str) -> InferenceError | None:
        found = _HOST.fullmatch(host)
        if found is None and host:
            return InvalidRequest(f"the Host header {shown(host)} is no HOST or HOST:PORT", field="Host")
        name = normal_host(found[1] or found[2]) if found else ""
        if name in self._names or _is_loopback(name) or (self._takes_addresses and is_address(name)):
            return None
        if name.endswith(self._parents) or (self._takes_private_names and _is_private(name)):
            return None
        return MisdirectedRequest(
            f"this service does not answer to the host {shown(host)}",
            field="Host",
            expected="localhost or an address of the service, or a name that api.allowed_hosts lists",
        )


def _is_loopback(name: str) -> bool:
    """Whether a name or an address is this machine's to every browser; names below `localhost` are, by RFC 6761."""
    if is_address(name):
        return is_loopback_only([name])
    return name == _LOOPBACK_NAME or name.endswith(f".{_LOOPBACK_NAME}")


def _is_private(name: str) -> bool:
    """Whether no public DNS has the name: one label is none there, and these two domains are reserved (RFC 6762, ICANN)."""
    return bool(name) and ("." not in name or name.endswith((".local", ".internal")))
