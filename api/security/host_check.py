"""Which hosts requests may be for: a page whose name resolves to our address (DNS rebinding) is of our origin to its browser.

Host: NAME[:PORT] ──malformed──▶ 400
        │ else
        ├─ an address                                                   ──▶ served: only names can be rebound
        ├─ a loopback name, the name in api.host, in api.allowed_hosts  ──▶ served
        ├─ this machine, as containers on it call it                    ──▶ served
        ├─ a name that no public DNS has, unless only loopback is
        │  listened on: this machine's, api, gpu.local, x.internal,
        │  api.default.svc                                              ──▶ served: nor can these
        └─ any other                                                    ──▶ 421
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

#: RFC 9110, section 7.2: a host of RFC 3986 (its zone as RFC 6874 has it, or as it is) and a port; neither user nor path.
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+(?:%[A-Za-z0-9._~-]+)?)\]|([A-Za-z0-9._~!$&'()*+,;=%-]+))(?::[0-9]{0,5})?")
#: A request line's URL in absolute form, up to the end of its authority.
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")
_LOOPBACK_NAME = "localhost"
#: The name by which containers reach what listens on the loopback addresses of their machine.
_CONTAINERS_HOST = "host.docker.internal"
#: No public DNS has them: RFC 6762, ICANN, and no top-level domain is called svc (Kubernetes' names of Services).
_PRIVATE_DOMAINS = (".local", ".internal", ".svc")


class HostCheck:
    """Checks the hosts that a request names.

    Args:
        settings: `host` is what is listened on, `allowed_hosts` further names.
    """

    def __init__(self, settings: ApiSettings) -> None:
        entries, addresses = settings.allowed_hosts, addresses_of(settings.host)
        self._is_off = ANY in entries
        self._names = {normal_host(settings.host), _CONTAINERS_HOST, *(entry.removeprefix(".") for entry in entries)}
        self._parents = tuple(entry.removeprefix("*") for entry in entries if entry.startswith((".", "*.")))
        self._takes_private_names = not is_loopback_only(addresses)
        if self._takes_private_names:
            self._names.add(normal_host(socket.gethostname()))
        self._error = lru_cache(maxsize=1024)(self._checked)

    def error(self, environ: dict[str, Any]) -> InferenceError | None:
        """The error of the request's host; None where it is served.

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
        if host and (found is None or (found[1] and not is_ipv6(found[1]))):
            return InvalidRequest(f"the Host header {shown(host)} is no HOST or HOST:PORT", field="Host")
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
    """Whether a name is this machine's to every browser; names below `localhost` are, by RFC 6761."""
    return name == _LOOPBACK_NAME or name.endswith(f".{_LOOPBACK_NAME}")


def _is_private(name: str) -> bool:
    """Whether no public DNS has the name: one label is none there."""
    return bool(name) and ("." not in name or name.endswith(_PRIVATE_DOMAINS))
