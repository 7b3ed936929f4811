"""Metrics of requests: how many there were by route and code, and how long they took."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from prometheus_client import Counter, Histogram

from api.security.proxies import Environ, Wsgi
from api.telemetry.route_names import route_name
from inference.metrics.api import http_request_duration, http_requests

#: Label of requests without a route of their own, or with an unusual method.
OTHER = "other"
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class RequestMetrics:
    """WSGI middleware that counts requests. A duration ends with the head of the answer, so streams count until they begin."""

    def __init__(self, application: Wsgi) -> None:
        self._application = application
        #: instruments by rule of Flask, method and code: looking them up by their labels costs several times as much
        self._instruments: dict[tuple[str | None, str, str], tuple[Counter, Histogram]] = {}

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        began = time.perf_counter()

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            requests, duration = self._instruments_of(environ, status[:3])
            requests.inc()
            duration.observe(time.perf_counter() - began)
            return start_response(status, headers, exc_info)

        return self._application(environ, start)

    def _instruments_of(self, environ: Environ, code: str) -> tuple[Counter, Histogram]:
        # Flask's request; it is missing if a check before Flask has refused it.
        rule = getattr(environ.get("werkzeug.request"), "url_rule", None)
        key = None if rule is None else rule.rule, environ["REQUEST_METHOD"], code
        found = self._instruments.get(key)
        if found is None:
            found = _bind(*key)
            if key[1] in _METHODS:  # others could be any number
                self._instruments[key] = found
        return found


def count_unreadable_request(code: int) -> None:
    """Count a request that the application did not answer: it is not valid HTTP, or too slow."""
    http_requests.labels(OTHER, OTHER, str(code)).inc()


def _bind(rule: str | None, method: str, code: str) -> tuple[Counter, Histogram]:
    route = OTHER if rule is None else route_name(rule)
    method = method if method in _METHODS else OTHER
    return http_requests.labels(route, method, code), http_request_duration.labels(route)
