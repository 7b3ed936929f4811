"""The least of an HTTP client: keep-alive connections for many requests at once, each as cheap as Python lets it be.

A load generator takes its CPU time from what it measures. At 900 requests a second asyncio's streams took 0.20 of a core,
callbacks, a parser in C and uvloop, on which its users run, take 0.13, the interpreter's start included; `wrk` takes 0.05.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import httptools


class Answer(NamedTuple):
    status: int
    #: by name in lower case
    headers: Mapping[bytes, bytes]
    body: bytes


class Connections:
    """To one URL, as many as are needed at once."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._path = parts.hostname or "127.0.0.1", parts.port or 80, parts.path
        if parts.query:
            self._path += f"?{parts.query}"
        self._idle: list[_Connection] = []

    async def post(self, body: bytes, content_type: str) -> bytes:
        """The body of the answer. Raises OSError, EOFError; ValueError when it is no 200, or no HTTP."""
        answer = await self.send(self._head(len(body), content_type) + body)
        if answer.status != HTTPStatus.OK:
            raise ValueError(f"{answer.status}: {answer.body[:300]!r}")
        return answer.body

    async def try_post(self, body: bytes, content_type: str) -> Answer:
        """The answer, whatever its status. Raises OSError, EOFError; ValueError when it is no HTTP."""
        return await self.send(self._head(len(body), content_type) + body)

    async def get(self) -> Answer:
        """As `try_post`."""
        return await self.send(f"GET {self._path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())

    async def send(self, request: bytes) -> Answer:
        """The answer to a whole request. Raises OSError, EOFError; ValueError when it is no HTTP."""
        connection = self._idle_connection() or await self._connect()
        answer = await connection.send(request)
        if connection.is_open:
            self._idle.append(connection)
        return answer

    def close(self) -> None:
        """Those that wait for a request."""
        for connection in self._idle:
            connection.close()

    def _idle_connection(self) -> _Connection | None:
        """One that the server has not closed meanwhile."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        return None

    async def _connect(self) -> _Connection:
        _, connection = await asyncio.get_running_loop().create_connection(_Connection, self._host, self._port)
        return connection

    def _head(self, length: int, content_type: str) -> bytes:
        lines = f"POST {self._path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: {content_type}\r\nContent-Length: {length}"
        return f"{lines}\r\n\r\n".encode()


class _Connection(asyncio.Protocol):
    """Sends a request when the last one is answered."""

    def __init__(self) -> None:
        self.is_open = False
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._answered: asyncio.Future[Answer] | None = None

    def send(self, request: bytes) -> asyncio.Future[Answer]:
        """The answer, or an error as of `Connections.send`."""
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answered

    def close(self) -> None:
        self.is_open = False
        self._transport.close()

    # asyncio calls these:

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(ValueError(f"it does not answer in HTTP: {error}"))
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        self._end(error or EOFError("the connection was closed before the answer"))

    # the parser calls these:

    def on_message_begin(self) -> None:
        self._headers, self._body = {}, []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, part: bytes) -> None:
        self._body.append(part)

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.close()
        self._end(Answer(self._parser.get_status_code(), self._headers, b"".join(self._body)))

    def _end(self, end: Answer | Exception) -> None:
        """Whoever waits hears of it; nobody does when it is over, or was given up."""
        answered, self._answered = self._answered, None
        if answered is None or answered.done():
            return
        if isinstance(end, Exception):
            answered.set_exception(end)
        else:
            answered.set_result(end)
