"""The least of an HTTP client: keep-alive connections for many requests at once, each as cheap as Python lets it be."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import urlsplit

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Connections:
    """To one URL, as many as are needed at once."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._path = parts.hostname or "127.0.0.1", parts.port or 80, parts.path
        self._idle: list[_Connection] = []

    async def post(self, body: bytes, content_type: str) -> bytes:
        """The body of the answer. Raises OSError, EOFError; ValueError when it is no 200."""
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(self._host, self._port)
        writer.write(self._head(len(body), content_type) + body)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        named = (line.partition(b":") for line in head.split(b"\r\n"))
        headers = {name: value.strip() for name, _, value in named}
        answer = await _body(reader, headers)
        if headers.get(b"connection") == b"close":
            writer.close()
        else:
            self._idle.append((reader, writer))
        status = int(head.split(b" ", 2)[1])
        if status != HTTPStatus.OK:
            raise ValueError(f"{status}: {answer[:300]!r}")
        return answer

    async def close(self) -> None:
        """Those that wait for a request."""
        for _, writer in self._idle:
            writer.close()
            await writer.wait_closed()

    def _head(self, length: int, content_type: str) -> bytes:
        lines = f"POST {self._path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: {content_type}\r\nContent-Length: {length}"
        return f"{lines}\r\n\r\n".encode()


async def _body(reader: asyncio.StreamReader, headers: Mapping[bytes, bytes]) -> bytes:
    """As long as the headers, which are in lower case, say; or in chunks without trailers."""
    if headers.get(b"transfer-encoding") != b"chunked":
        return await reader.readexactly(int(headers[b"content-length"]))
    chunks = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        chunks.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readexactly(2)
    return b"".join(chunks)
