"""HTTP server of the worker and of the relay for monitoring, on a port of its own: metrics and probes."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import BaseServer, ThreadingMixIn
from typing import Any, NamedTuple

import orjson

from inference.runtime.health import Checks, is_healthy
from inference.settings.http_address import bound_socket

logger = logging.getLogger(__name__)

#: Connections that are served concurrently; further ones are closed at once.
_MAX_CONNECTIONS = 16
#: Time after which a connection is closed in any case, seconds.
_MAX_CONNECTION_S = 10.0
#: Interval of the search for such connections, seconds.
_CHECK_INTERVAL_S = 0.5
_JSON = "application/json"


class Page(NamedTuple):
    """Answer to a GET request."""

    content_type: str
    body: bytes
    status: int = HTTPStatus.OK


Pages = Mapping[str, Callable[[], Page]]


def health_pages(*, live: Callable[[], Checks], ready: Callable[[], Checks]) -> Pages:
    """Return the pages of the two probes, in the form of the API's: 200, or 503 if a check has failed."""
    return {"/health/live": lambda: _health_page("live", live()), "/health/ready": lambda: _health_page("ready", ready())}


def _health_page(word: str, checks: Checks) -> Page:
    is_good = is_healthy(checks)
    document = {"status": word if is_good else f"not {word}", "checks": dict(checks)}
    return Page(_JSON, orjson.dumps(document) + b"\n", HTTPStatus.OK if is_good else HTTPStatus.SERVICE_UNAVAILABLE)


class MonitoringServer:
    """Serves pages to GET and HEAD requests, one request per connection, on threads of its own.

    Args:
        pages: by path.
        key: the setting that names the port.

    Raises:
        ConfigurationError: the address is not this machine's, or the port is not available.
    """

    def __init__(self, host: str, port: int, pages: Pages, *, key: str) -> None:
        bound = bound_socket(host, port, key="monitoring.host", port_key=key)
        bound.listen(_MAX_CONNECTIONS)
        self.port: int = bound.getsockname()[1]
        self._server = _Server(bound, pages)
        self._thread = threading.Thread(target=self._server.serve_forever, name="monitoring", daemon=True)

    def start(self) -> None:
        """Serve until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port; requests that are being answered go on."""
        if self._thread.ident is not None:
            self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingMixIn, BaseServer):
    """Server on a bound socket that listens.

    socketserver's `TCPServer` binds its own socket, IPv4 only.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, bound: socket.socket, pages: Pages) -> None:
        super().__init__(bound.getsockname(), _Handler)
        self.pages = pages
        self._socket = bound
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, float] = {}  # by connection, when it was accepted

    def serve_forever(self, poll_interval: float = _CHECK_INTERVAL_S) -> None:
        super().serve_forever(poll_interval)

    def fileno(self) -> int:
        return self._socket.fileno()

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            connection, address = self._socket.accept()
        except OSError:  # no file is left for it, for example
            time.sleep(_CHECK_INTERVAL_S)
            raise
        with self._lock:
            self._connections[connection] = time.monotonic()
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 socketserver's signature
        with self._lock:
            return len(self._connections) <= _MAX_CONNECTIONS

    def service_actions(self) -> None:
        """End connections that take too long. Their threads then get an error, and close them."""
        oldest = time.monotonic() - _MAX_CONNECTION_S
        with self._lock:
            for connection, accepted_at in self._connections.items():
                if accepted_at < oldest:
                    _shut_down(connection)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.pop(request, None)
        _shut_down(request)
        request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 socketserver's signature
        logger.debug("a monitoring request of %s failed", client_address)

    def server_close(self) -> None:
        self._socket.close()


def _shut_down(connection: socket.socket) -> None:
    with suppress(OSError):  # the client has closed it
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    """One request: an answer in HTTP/1.0, after which the connection is closed."""

    server: _Server
    timeout = _MAX_CONNECTION_S
    server_version = "inference"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        make = self.server.pages.get(path)
        if make is None:
            self.send_error(HTTPStatus.NOT_FOUND, f"the paths are {', '.join(self.server.pages)}")
            return
        try:
            page = make()
        except Exception:
            logger.exception("the page %s failed", path)
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, "the log of this process says why")
        else:
            self._send(page)

    do_HEAD = do_GET  # noqa: N815 the library's name

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002 the library's
        """Send an error as JSON. The library calls this too, for requests that it cannot read, and for other methods."""
        is_method = code == HTTPStatus.NOT_IMPLEMENTED
        status = HTTPStatus.METHOD_NOT_ALLOWED if is_method else HTTPStatus(code)
        document = {"status": status.value, "title": status.phrase, "detail": message or status.phrase}
        self._send(Page(_JSON, orjson.dumps(document) + b"\n", status), {"Allow": "GET, HEAD"} if is_method else {})

    def _send(self, page: Page, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(page.status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.send_header("Cache-Control", "no-store")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page.body)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 the library's signature
        logger.debug(format, *arguments)
