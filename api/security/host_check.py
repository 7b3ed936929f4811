"""Check of the Host header against DNS rebinding.

A browser treats a page as of this service's origin if the page's host name resolves to this service's address.

Host: NAME[:PORT] ──malformed──▶ 400
        │ else
        ├─ an address                                                   ──▶ served: only names can be rebound
        ├─ a loopback name, the name in api.host, in api.allowed_hosts  ──▶ served
        ├─ the name that containers use for their machine               ──▶ served
        ├─ a name that public DNS cannot have, unless the service
        │  listens on loopback only: the machine's own name, api,
        │  gpu.local, x.internal, api.default.svc                       ──▶ served: it cannot be rebound
        └─ any other host                                               ──▶ 421
"""

from __future__ import annotations

import re
import socket
from functools import lru_cache
from typing import Any

from inference.errors import InferenceError, InvalidRequest, MisdirectedRequest, shown
from inference.settings import ApiSettings
from inference.settings.http_address import addresses_of, is_address, is_ipv6, is_loopback_only, normal_host
from inference.settings.web_origins import ANY

#: RFC 9110, section 7.2: a host of RFC 3986 (with a zone as in RFC 6874, or unencoded) and a port; neither user nor path.
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+(?:%[A-Za-z0-9._~-]+)?)\]|([A-Za-z0-9._~!$&'()*+,;=%-]+))(?::[0-9]{0,5})?")
#: The URL of a request line in absolute form, up to the end of the authority.
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")
_LOOPBACK_NAME = "localhost"
#: The name by which containers reach servers on the loopback addresses of their machine.
_CONTAINERS_HOST = "host.docker.internal"
#: Domains that public DNS does not have: RFC 6762, ICANN, and svc is not a top-level domain (Kubernetes Services use it).
_PRIVATE_DOMAINS = (".local", ".internal", ".svc")


class HostCheck:
    """Checks the hosts that a request names.

    Args:
        settings: `host` is the address to listen on, `allowed_hosts` are further names.
    """

    def __init__(self, settings: ApiSettings) -> None:
        entries, addresses = settings.allowed_hosts, addresses_of(settings.host)
        self._is_off = ANY in entries
        own = (normal_host(host) for host, _ in settings.listening_addresses.values())
        self._names = {*own, _CONTAINERS_HOST, *(entry.removeprefix(".") for entry in entries)}
        self._parents = tuple(entry.removeprefix("*") for entry in entries if entry.startswith((".", "*.")))
        self._takes_private_names = not is_loopback_only(addresses)
        if self._takes_private_names:
            self._names.add(normal_host(socket.gethostname()))
        self._error = lru_cache(maxsize=1024)(self._checked)

    def error(self, environ: dict[str, Any]) -> InferenceError | None:
        """The error with which the request is refused; None if it is served.

        An HTTP/1.0 request without the header is served: browsers always send one.
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
        if host and (found is None or (found[1] and not is_ipv6(found[1]))):
            return InvalidRequest(f"the Host header {shown(host)} is not HOST or HOST:PORT", field="Host")
        name = normal_host(found[1] or found[2]) if found else ""
        if is_address(name) or name in self._names or _is_loopback(name):
            return None
        if name.endswith(self._parents) or (self._takes_private_names and _is_private(name)):
            return None
        return MisdirectedRequest(
            f"this service does not answer to the host {shown(host)}",
            field="Host",
            expected="localhost, an IP address, or a name that api.allowed_hosts lists",
        )


def _is_loopback(name: str) -> bool:
    """Whether every browser resolves the name to its own machine; RFC 6761 requires it for names below `localhost`."""
    return name == _LOOPBACK_NAME or name.endswith(f".{_LOOPBACK_NAME}")


def _is_private(name: str) -> bool:
    """Whether public DNS cannot have the name, for example because it has only one label."""
    return bool(name) and ("." not in name or name.endswith(_PRIVATE_DOMAINS))
