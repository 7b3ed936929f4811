"""Outermost layer of the application: security checks and headers for all routes.

request ──▶ Host ──421──▶ origin ──403──▶ preflight ──204──▶ route
answer  ◀── security headers, CORS headers, X-Request-ID
"""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import orjson

from api.security.cross_origin import PREFLIGHT_HEADERS, CrossOriginRules
from api.security.headers import CACHE_CONTROL, CONTENT_POLICY, HSTS, REQUEST_ID
from api.security.host_check import HostCheck
from api.security.proxies import Environ, Wsgi
from api.security.rate_limit import rate_limit_headers
from api.telemetry.route_names import route_name
from api.views.problems import error_body
from inference.errors import InferenceError
from inference.runtime.log_context import clear_log_fields, current_log_fields, logged_request_id
from inference.settings import ApiSettings

#: Keys of the WSGI environment, for the access log: the route that the path matches, and fields of log lines.
LOGGED_ROUTE, LOGGED_FIELDS = "inference.log_route", "inference.log_fields"
#: A request id that a client chose: characters that have no special meaning in a header or a log.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")


class WebSecurity:
    """WSGI middleware: checks each request before its body is read, and completes each answer's headers."""

    def __init__(self, application: Wsgi, settings: ApiSettings) -> None:
        self._application = application
        self._hosts = HostCheck(settings)
        self._rules = CrossOriginRules(settings.cors_origins)
        #: random digits of this process, then a number: a random id for each request would need a system call
        self._ids = map(f"{secrets.token_hex(8)}{{:016x}}".format, itertools.count(1))

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        origin = environ.get("HTTP_ORIGIN", "")
        sent_id = environ.get("HTTP_X_REQUEST_ID")
        request_id = sent_id if sent_id and _REQUEST_ID.fullmatch(sent_id) else next(self._ids)
        environ[LOGGED_FIELDS] = {"request_id": request_id}
        added = [*self._rules.headers(origin), (REQUEST_ID, request_id)]
        if environ["wsgi.url_scheme"] == "https":
            added.append(HSTS)

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            environ[LOGGED_ROUTE] = _route(environ)
            ours, own = added + rate_limit_headers(environ, status), dict(headers)
            if CONTENT_POLICY in own or CACHE_CONTROL in own:  # of a page, which has others; a browser would obey both
                ours = [header for header in ours if header[0] not in own]
            return start_response(status, headers + ours, exc_info)

        error = self._hosts.error(environ) or self._rules.error(environ, origin)
        if error is not None:
            return _problem(error, environ, start)
        if self._rules.is_preflight(environ, origin):
            start(_status_line(HTTPStatus.NO_CONTENT), PREFLIGHT_HEADERS)
            return []
        logged_request_id.set(request_id)
        try:
            return self._application(environ, start)
        finally:
            environ[LOGGED_FIELDS] = current_log_fields()
            clear_log_fields()


def _route(environ: Environ) -> str:
    """Return the route that the path matches, as long as Flask serves the request; empty if it matches none."""
    rule = getattr(environ.get("werkzeug.request"), "url_rule", None)
    return "" if rule is None else route_name(rule.rule)


def _problem(error: InferenceError, environ: Environ, start_response: Any) -> Iterable[bytes]:
    document, media_type = error_body(error, environ["PATH_INFO"])
    body = orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)
    headers = [("Content-Type", media_type), ("Content-Length", str(len(body)))]
    start_response(_status_line(HTTPStatus(error.status)), headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def _status_line(status: HTTPStatus) -> str:
    return f"{status.value} {status.phrase}"
