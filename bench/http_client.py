"""Minimal HTTP client: keep-alive connections for concurrent requests, with little CPU time per request.

A load generator takes CPU time from the measured service. At 900 requests per second asyncio's streams took 0.20 of a core;
callbacks, a parser in C and uvloop, which the callers use, take 0.13, the interpreter's start included; `wrk` takes 0.05.
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
    #: by lower-case name
    headers: Mapping[bytes, bytes]
    body: bytes


class Connections:
    """Connections to one URL, as many as there are concurrent requests."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._path = parts.hostname or "127.0.0.1", parts.port or 80, parts.path
        if parts.query:
            self._path += f"?{parts.query}"
        self._idle: list[_Connection] = []

    async def post(self, body: bytes, content_type: str) -> bytes:
        """Send a POST and return the body of the answer. Raises OSError, EOFError; ValueError if it is not a 200, or not HTTP."""
        answer = await self.send(self._head(len(body), content_type) + body)
        if answer.status != HTTPStatus.OK:
            raise ValueError(f"{answer.status}: {answer.body[:300]!r}")
        return answer.body

    async def try_post(self, body: bytes, content_type: str) -> Answer:
        """Send a POST and return the answer of any status. Raises OSError, EOFError; ValueError if it is not HTTP."""
        return await self.send(self._head(len(body), content_type) + body)

    async def get(self) -> Answer:
        """Send a GET; raises the errors of `try_post`."""
        return await self.send(f"GET {self._path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())

    async def send(self, request: bytes) -> Answer:
        """Send a whole request and return the answer. Raises OSError, EOFError; ValueError if it is not HTTP."""
        connection = self._idle_connection() or await self._connect()
        answer = await connection.send(request)
        if connection.is_open:
            self._idle.append(connection)
        return answer

    def close(self) -> None:
        """Close all idle connections."""
        for connection in self._idle:
            connection.close()

    def _idle_connection(self) -> _Connection | None:
        """Find a connection that the server has not closed."""
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
    """One connection; sends a request after the answer to the previous one."""

    def __init__(self) -> None:
        self.is_open = False
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._answered: asyncio.Future[Answer] | None = None

    def send(self, request: bytes) -> asyncio.Future[Answer]:
        """Send a request; the future has the answer, or an error of `Connections.send`."""
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answered

    def close(self) -> None:
        self.is_open = False
        self._transport.close()

    # callbacks of asyncio:

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(ValueError(f"the answer is not HTTP: {error}"))
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        self._end(error or EOFError("the connection was closed before the answer"))

    # callbacks of the parser:

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
        """Set the result of the pending request, if there is one and it was not cancelled."""
        answered, self._answered = self._answered, None
        if answered is None or answered.done():
            return
        if isinstance(end, Exception):
            answered.set_exception(end)
        else:
            answered.set_result(end)
