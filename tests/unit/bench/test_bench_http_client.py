"""The client of the open loop reads what every contender answers, over connections that it keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread

import pytest
import uvloop
from support.receiver import QuietServer

from bench.http_client import Connections

ANSWER = b'{"prediction": [0.25, 0.75]}'


class Answers(BaseHTTPRequestHandler):
    """Answers by path: `/chunked`, `/plain`, `/last`, after which it closes, or refused; an answer ends with its connection."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        answer = ANSWER + str(self.client_address[1]).encode()
        self.send_response(503 if self.path == "/refused" else 200)
        if self.path == "/chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in (answer[:20], answer[20:]):
                self.wfile.write(f"{len(part):X}\r\n".encode() + part + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
        self.close_connection = self.path == "/last"

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    with QuietServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


async def posted(url: str, times: int) -> list[bytes]:
    connections = Connections(url)
    try:
        return [await connections.post(b"image", "text/plain") for _ in range(times)]
    finally:
        connections.close()


@pytest.mark.parametrize("path", ["/plain", "/chunked"])
def test_answers_come_whole_over_one_connection(address: str, path: str) -> None:
    first, second = uvloop.run(posted(address + path, 2))

    assert first.startswith(ANSWER)
    assert first == second


def test_what_is_no_200_is_an_error_with_what_it_says(address: str) -> None:
    with pytest.raises(ValueError, match=r"503.*prediction"):
        uvloop.run(posted(f"{address}/refused", 1))


def test_a_connection_that_the_server_closed_is_not_used_again(address: str) -> None:
    async def posted_later() -> list[bytes]:
        connections = Connections(f"{address}/last")
        answers = []
        for _ in range(2):
            answers.append(await connections.post(b"image", "text/plain"))
            await asyncio.sleep(0.1)
        connections.close()
        return answers

    first, second = uvloop.run(posted_later())

    assert first != second


@pytest.mark.parametrize(
    ("says", "error"), [(b"220 mail ESMTP\r\n", ValueError), (b"", EOFError), (b"HTTP/1.1 200 OK\r\n", EOFError)]
)
def test_a_server_that_does_not_answer_is_an_error(says: bytes, error: type[Exception]) -> None:
    class Says(BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1000)
            self.request.sendall(says)

    with ThreadingTCPServer(("127.0.0.1", 0), Says) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(error):
            uvloop.run(posted(f"http://127.0.0.1:{server.server_address[1]}/", 1))
        server.shutdown()
