"""An HTTP server on a real socket whose answers, and ways to fail, a test prescribes one by one."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from support.receiver import QuietServer


@dataclass(frozen=True)
class Scripted:
    """One answer.

    Attributes:
        document: the body as JSON, if `body` is None.
        sent: bytes of the body that are sent before the connection ends; None sends all of them.
        is_reset: whether the connection is reset once the request was read, without an answer.
    """

    status: int = 200
    document: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    sent: int | None = None
    is_reset: bool = False

    @property
    def content(self) -> bytes:
        return json.dumps(self.document).encode() if self.body is None else self.body


@dataclass(frozen=True)
class Recorded:
    """One request."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


RESET = Scripted(is_reset=True)


def problem(status: int, code: str, **members: Any) -> Scripted:
    """An answer with a problem; those with `retry_after_s` have the header too."""
    document = {
        "type": f"urn:problem-type:inference:{code}",
        "title": code,
        "status": status,
        "detail": f"it is {code}",
        "code": code,
    }
    headers = {"Content-Type": "application/problem+json", "X-Request-ID": "request-1"}
    if "retry_after" in members:
        headers["Retry-After"] = str(members.pop("retry_after"))
    return Scripted(status, document | members, headers)


class ScriptedServer:
    """Gives the answers in their order, the last one again and again; records the requests."""

    def __init__(self, answers: Sequence[Scripted]) -> None:
        self._answers = list(answers)
        self._lock = threading.Lock()
        self.requests: list[Recorded] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                server._answer(self, Recorded(self.command, self.path, headers, body))

            do_GET = do_POST = do_DELETE = do_PUT = answer  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self._server = QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler, request: Recorded) -> None:
        with self._lock:
            self.requests.append(request)
            scripted = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if scripted.is_reset:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.close_connection = True
            return
        handler.send_response(scripted.status)
        for name, value in {"Content-Type": "application/json", **scripted.headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(scripted.content)))
        handler.end_headers()
        handler.wfile.write(scripted.content[: scripted.sent])
        handler.close_connection = handler.close_connection or scripted.sent is not None


@contextmanager
def scripted_server(*answers: Scripted) -> Iterator[ScriptedServer]:
    """A server with these answers, for the time of a test."""
    server = ScriptedServer(answers)
    try:
        yield server
    finally:
        server.close()
