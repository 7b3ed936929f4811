"""Spans of HTTP requests, and the context that the tasks of a request get.

traceparent ──▶ span of the request ──▶ span `send` ──▶ task ──▶ worker, sinks, webhook
      └──────────── without traces ──────────────────────▲
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from flask import Flask, Request, Response
from flask.globals import request_ctx

from api.security.caller import caller_in
from api.telemetry.route_names import route_name
from api.views.problems import error_code_in
from inference.runtime.log_context import logged_request_id, logged_trace_id
from inference.tracing.context import active_context, read_context, trace_id_of

if TYPE_CHECKING:
    from inference.tracing.tracer import Attributes, Tracer, TraceSpan

T = TypeVar("T")

#: Key of the WSGI environment: the span of the request.
_SPAN = "inference.trace_span"
#: Probes, figures and pages, which monitoring and browsers ask for again and again, have no spans.
_LEFT_OUT_BLUEPRINTS = {"health", "metrics", "console", "documentation"}
_LEFT_OUT_ENDPOINTS = {"status.get_status", "v2.live", "v2.ready", "v2.model_ready"}
#: Methods of RFC 9110 and RFC 5789; the name of a span has no other text of a client.
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


def task_context() -> str:
    """Return the context for tasks of the current request: of the active span, else as the caller sent it; empty without one."""
    return active_context.get() or _sent_context(request_ctx.request.environ)


def _sent_context(environ: Mapping[str, Any]) -> str:
    sent = environ.get("HTTP_TRACEPARENT")
    return "" if sent is None else read_context(sent, environ.get("HTTP_TRACESTATE"))


def in_send_span(tracer: Tracer | None, accept: Callable[[], T], describe: Callable[[T], tuple[str, Attributes]]) -> T:
    """Call `accept` in the span `send QUEUE`, in which tasks are checked, stored and queued, if the request has a span.

    Args:
        describe: returns the queue of the accepted tasks, and attributes.
    """
    span = None if tracer is None else tracer.start_child("send", "producer")
    if span is None:
        return accept()
    with span:
        accepted = accept()
        queue, attributes = describe(accepted)
        span.rename(f"send {queue}")
        span.add({"messaging.operation.type": "send", "messaging.destination.name": queue, **attributes})
        return accepted


class RequestTracing:
    """Spans of an application's requests, from the routing to the answer."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def install(self, app: Flask) -> None:
        """Trace each request of `app`; call it before other hooks are installed, so that their work is in the span."""
        app.url_value_preprocessor(self._begin)
        app.after_request(self._note_answer)
        app.teardown_request(self._end)

    def _begin(self, endpoint: str | None, values: dict[str, Any] | None) -> None:
        request: Request = request_ctx.request
        if request.blueprint in _LEFT_OUT_BLUEPRINTS or endpoint in _LEFT_OUT_ENDPOINTS:
            return
        method = request.method if request.method in _METHODS else "HTTP"
        route = route_name(request.url_rule.rule) if request.url_rule is not None else ""
        span = self._tracer.start(f"{method} {route}".rstrip(), _sent_context(request.environ), "server")
        if span is None:
            return
        span.add({"http.request.method": method if method in _METHODS else "_OTHER", "url.scheme": request.scheme})
        span.add({"http.route": route} if route else {})
        named = {f"inference.{name.replace('_', '.')}": (values or {}).get(name) for name in ("task_id", "batch_id")}
        span.add({name: value for name, value in named.items() if value is not None})
        request.environ[_SPAN] = span
        active_context.set(span.context)
        logged_trace_id.set(trace_id_of(span.context))  # until the request's line is logged: see WebSecurity

    def _note_answer(self, response: Response) -> Response:
        environ = request_ctx.request.environ
        span: TraceSpan | None = environ.get(_SPAN)
        if span is not None:
            owner = caller_in(environ).owner
            span.add({"http.response.status_code": response.status_code} | ({"inference.owner": owner} if owner else {}))
            span.add({"http.response.header.x-request-id": (logged_request_id.get(),)})
            if (code := error_code_in(environ)) is not None:
                span.note_error(code, response.status_code)
        return response

    def _end(self, _error: BaseException | None) -> None:
        span: TraceSpan | None = request_ctx.request.environ.pop(_SPAN, None)
        if span is not None:
            active_context.set("")
            span.end()
