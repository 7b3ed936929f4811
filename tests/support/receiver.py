"""An HTTP server of a test, on a port of loopback: notes its requests, and answers as the test wants."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass(frozen=True)
class Received:
    method: str
    path: str
    headers: Message
    body: bytes


@dataclass(frozen=True)
class Reply:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class QuietServer(ThreadingHTTPServer):
    """A server that prints nothing if a client closes early: the text would be in the output of another test."""

    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent."""


class Receiver:
    """Answers each request by `reply`, a function of the request that may also write to the open connection and return None.

    Args:
        certificate, key: TLS.
        port: 0: a free one.
    """

    def __init__(self, *, certificate: Path | None = None, key: Path | None = None, port: int = 0) -> None:
        self.received: list[Received] = []
        self.reply: Callable[[Received, BaseHTTPRequestHandler], Reply | None] = lambda _request, _handler: Reply()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                request = Received(self.command, self.path, self.headers, body)
                receiver.received.append(request)
                reply = receiver.reply(request, self)
                if reply is not None:
                    self.send_response(reply.status)
                    for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(reply.body)

            do_GET = do_POST = do_PUT = _serve  # noqa: N815 names of http.server

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 name of http.server
                pass

        self._server = QuietServer(("127.0.0.1", port), Handler)
        self.scheme = "http" if certificate is None else "https"
        if certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate, key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def url(self, host: str = "127.0.0.1", path: str = "/") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def running_receiver(**options: object) -> Iterator[Receiver]:
    receiver = Receiver(**options)  # type: ignore[arg-type]
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.stop()
