"""Requests as httpx2 sends them, for both clients."""

from __future__ import annotations

import os
from typing import Any

import httpx2

from rohe_inference.errors import ConnectionFailed
from rohe_inference.messages import Reply, Request

JSON_LINES = "application/jsonl"
EVENT_STREAM = "text/event-stream"
#: An event with a page of tasks and their vectors may be large.
MAX_EVENT_BYTES = 64 * 1024 * 1024

_DEFAULT_URL = "http://127.0.0.1:30005"
_URL_VARIABLE = "ROHE_INFERENCE_URL"
_KEY_VARIABLE = "ROHE_INFERENCE_API_KEY"


def service_url(url: str | None) -> str:
    """Return the address of the service, without a slash at its end. Raises ValueError: it is no http(s) URL."""
    text = url or os.environ.get(_URL_VARIABLE) or _DEFAULT_URL
    try:
        parsed = httpx2.URL(text)
    except httpx2.InvalidURL as error:
        raise ValueError(f"{text!r} is no URL: {error}") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ValueError(f"{text!r} is no address of a service: expected {_DEFAULT_URL} and the like")
    return text.rstrip("/")


def service_key(api_key: str | None) -> str | None:
    """Return the API key, if there is one."""
    return api_key or os.environ.get(_KEY_VARIABLE) or None


def arguments(request: Request, url: str, timeout_s: float) -> dict[str, Any]:
    """Return the arguments of `build_request` for a request."""
    is_whole = request.path.startswith(("http://", "https://"))
    return {
        "method": request.method,
        "url": request.path if is_whole else f"{url}{request.path}",
        "params": request.params or None,
        "headers": dict(request.headers),
        "files": [("image", file) for file in request.files] or None,
        "data": {"metadata": request.metadata} if request.files else None,
        "json": request.document,
        "content": request.content,
        "timeout": httpx2.Timeout(timeout_s, read=timeout_s + request.patience_s),
    }


def reply_of(response: httpx2.Response, body: bytes) -> Reply:
    """Return the reply with a body."""
    return Reply(response.status_code, {name.lower(): value for name, value in response.headers.items()}, body)


def media_type(response: httpx2.Response) -> str:
    """Return the Content-Type without parameters."""
    return reply_of(response, b"").media_type


def connection_failed(error: httpx2.HTTPError, url: str) -> ConnectionFailed:
    """Return the error of this package for one of the library."""
    reason = str(error) or type(error).__name__
    return ConnectionFailed(f"no answer from {url}: {reason}")
