"""The client of the open loop reads what every contender answers, over connections that it keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from bench.http_client import Connections

ANSWER = b'{"prediction": [0.25, 0.75]}'


class Answers(BaseHTTPRequestHandler):
    """By path: `/chunked`, `/plain`, or refused; says in the answer's end which connection it came over."""

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

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


async def posted(url: str, times: int) -> list[bytes]:
    connections = Connections(url)
    try:
        return [await connections.post(b"image", "text/plain") for _ in range(times)]
    finally:
        await connections.close()


@pytest.mark.parametrize("path", ["/plain", "/chunked"])
def test_answers_come_whole_over_one_connection(address: str, path: str) -> None:
    first, second = asyncio.run(posted(address + path, 2))

    assert first.startswith(ANSWER)
    assert first == second


def test_what_is_no_200_is_an_error_with_what_it_says(address: str) -> None:
    with pytest.raises(ValueError, match=r"503.*prediction"):
        asyncio.run(posted(f"{address}/refused", 1))
