"""Web pages of other origins: which may use the API, and how a browser is told so.

    GET, HEAD, OPTIONS ─────────────────────────────────────────▶ served
    Origin in api.cors_origins ─────────────────────────────────▶ served
    Sec-Fetch-Site: same-origin or none ────────────────────────▶ served
    any other Sec-Fetch-Site ───────────────────────────────────▶ 403 cross_origin
    no Sec-Fetch-Site: no Origin (no browser), or that of Host ─▶ served; any other Origin ▶ 403 cross_origin

The rules are those of Go's net/http.CrossOriginProtection. Browsers send Sec-Fetch-Site over HTTPS and to loopback names.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from api.security.headers import SECURITY_HEADERS, Headers
from inference.errors import CrossOrigin, shown
from inference.settings.web_origins import ANY, DEFAULT_PORTS

Environ = dict[str, Any]

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_ALLOWED_METHODS = "GET, HEAD, POST, DELETE, OPTIONS"
#: `*` stands for all others but Authorization in browsers that know it.
_ALLOWED_HEADERS = "Authorization, Content-Type, Idempotency-Key, Prefer, X-Request-ID, *"
_EXPOSED_HEADERS = (
    "Batch-Id, Idempotent-Replayed, Link, Location, Preference-Applied, Retry-After, Server-Timing, Task-Id, X-Request-ID"
)
#: Seconds for which a browser need not ask again; Chromium takes no more than two hours.
_PREFLIGHT_MAX_AGE_S = 3600
_RESOURCE_POLICY = "Cross-Origin-Resource-Policy"


class CrossOriginRules:
    """Decides about requests by their Origin.

    Args:
        origins: `api.cors_origins`.
    """

    def __init__(self, origins: Collection[str]) -> None:
        self._takes_any = ANY in origins
        self._origins = frozenset(origins)
        vary: Headers = [("Vary", "Origin")] if origins and not self._takes_any else []
        self._headers = SECURITY_HEADERS + vary
        others = [header for header in self._headers if header[0] != _RESOURCE_POLICY]
        self._cors_headers: Headers = [
            *others,
            (_RESOURCE_POLICY, "cross-origin"),
            ("Access-Control-Expose-Headers", _EXPOSED_HEADERS),
        ]

    def is_trusted(self, origin: str) -> bool:
        return bool(origin) and (self._takes_any or origin in self._origins)

    def headers(self, origin: str) -> Headers:
        """The headers of an answer to a page of `origin`; empty: there is none."""
        if not self.is_trusted(origin):
            return self._headers
        return [*self._cors_headers, ("Access-Control-Allow-Origin", ANY if self._takes_any else origin)]

    def is_preflight(self, environ: Environ, origin: str) -> bool:
        """Whether a browser asks what a page of a trusted origin may send."""
        is_asked = environ["REQUEST_METHOD"] == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ
        return is_asked and self.is_trusted(origin)

    def error(self, environ: Environ, origin: str) -> CrossOrigin | None:
        """Why the request is refused; None where it is served."""
        if environ["REQUEST_METHOD"] in _SAFE_METHODS or self.is_trusted(origin):
            return None
        site = environ.get("HTTP_SEC_FETCH_SITE", "")
        if site in ("same-origin", "none"):
            return None
        if not site and (not origin or _is_of_host(origin, environ.get("HTTP_HOST", ""))):
            return None
        sender = f"of {shown(origin)}" if origin else "of another site"
        return CrossOrigin(
            f"a web page {sender} may not send this request",
            field="Origin" if origin else "Sec-Fetch-Site",
            expected="a page of this service's own origin, one that api.cors_origins lists, or a client that is no browser",
        )


PREFLIGHT_HEADERS: Headers = [
    ("Access-Control-Allow-Methods", _ALLOWED_METHODS),
    ("Access-Control-Allow-Headers", _ALLOWED_HEADERS),
    ("Access-Control-Max-Age", str(_PREFLIGHT_MAX_AGE_S)),
]


def _is_of_host(origin: str, host: str) -> bool:
    """Whether `origin` names the host that the request is for; of either scheme, since Host does not say which it is."""
    scheme, _, authority = origin.lower().partition("://")
    port = f":{DEFAULT_PORTS.get(scheme, '')}"
    return bool(authority) and authority.removesuffix(port) == host.lower().removesuffix(port)
