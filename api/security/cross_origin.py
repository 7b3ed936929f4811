"""Rules for web pages of other origins: they decide which pages may use the API, and set the headers for the browser.

    GET, HEAD, OPTIONS ─────────────────────────────────────────▶ served
    Origin in api.cors_origins ─────────────────────────────────▶ served
    Sec-Fetch-Site: same-origin or none ────────────────────────▶ served
    any other Sec-Fetch-Site ───────────────────────────────────▶ 403 cross_origin
    no Sec-Fetch-Site: no Origin (no browser), or Host's own ───▶ served; any other Origin ▶ 403 cross_origin

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
_ALLOWED_METHODS = "GET, HEAD, POST, PUT, DELETE, OPTIONS"
#: `*` means all other headers except Authorization, in browsers that support it.
_ALLOWED_HEADERS = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Prefer, X-API-Key, X-Request-ID, *"
_EXPOSED_HEADERS = (
    "Array-Dtype, Array-Shape, Batch-Id, Content-Disposition, Idempotent-Replayed, Inference-Header-Content-Length, Link, "
    "Location, Preference-Applied, RateLimit, RateLimit-Policy, Retry-After, Server-Timing, Task-Id, WWW-Authenticate, "
    "X-Request-ID"
)
#: Seconds for which a browser need not send another preflight; Chromium allows at most two hours.
_PREFLIGHT_MAX_AGE_S = 3600
_RESOURCE_POLICY = "Cross-Origin-Resource-Policy"


class CrossOriginRules:
    """Decides by their Origin which requests are served.

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
        """Whether `api.cors_origins` lists the origin."""
        return bool(origin) and (self._takes_any or origin in self._origins)

    def headers(self, origin: str) -> Headers:
        """The headers of an answer to a page of `origin`, which is empty if the request has none."""
        if not self.is_trusted(origin):
            return self._headers
        return [*self._cors_headers, ("Access-Control-Allow-Origin", ANY if self._takes_any else origin)]

    def is_preflight(self, environ: Environ, origin: str) -> bool:
        """Whether the request is a preflight: a browser asks which requests a page of a trusted origin may send."""
        is_preflight = environ["REQUEST_METHOD"] == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ
        return is_preflight and self.is_trusted(origin)

    def error(self, environ: Environ, origin: str) -> CrossOrigin | None:
        """The error with which the request is refused; None if it is served."""
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
            expected="a page of this service's own origin, one that api.cors_origins lists, or a client that is not a browser",
        )


PREFLIGHT_HEADERS: Headers = [
    ("Access-Control-Allow-Methods", _ALLOWED_METHODS),
    ("Access-Control-Allow-Headers", _ALLOWED_HEADERS),
    ("Access-Control-Max-Age", str(_PREFLIGHT_MAX_AGE_S)),
]


def _is_of_host(origin: str, host: str) -> bool:
    """Whether `origin` is the host of the request, with http or https, since the Host header does not contain the scheme."""
    scheme, _, authority = origin.lower().partition("://")
    port = f":{DEFAULT_PORTS.get(scheme, '')}"
    return bool(authority) and authority.removesuffix(port) == host.lower().removesuffix(port)
