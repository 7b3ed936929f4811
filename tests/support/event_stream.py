"""Reader of the event streams of a running API, on a raw connection."""

from __future__ import annotations

from http.client import HTTPResponse
from typing import Any, Self

import orjson
from support.api_process import ApiProcess, Connection, get


class EventStream:
    """Stream of a path; the answer is 200."""

    def __init__(self, api: ApiProcess, path: str, head: bytes = b"", version: bytes = b"HTTP/1.1") -> None:
        self.connection: Connection = api.connect()
        self.connection.send(get(head, target=path.encode(), version=version))
        self.response = HTTPResponse(self.connection.socket, method="GET")
        self.response.begin()
        assert self.response.status == 200, self.response.read()
        assert self.response.getheader("Content-Type", "").startswith("text/event-stream")
        assert self._block() == [b"retry: 1000"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def next(self) -> tuple[str, dict[str, Any]]:
        """Id and data of the next event; None is a failure."""
        block = self._block()
        assert block, "the stream has ended"
        fields = dict(line.split(b": ", 1) for line in block)
        return fields[b"id"].decode(), orjson.loads(fields[b"data"])

    def status(self) -> str:
        """The status in the next event."""
        return str(self.next()[1]["status"])

    def has_ended(self) -> bool:
        """Nothing follows."""
        return self._block() == []

    def close(self) -> None:
        self.response.close()
        self.connection.socket.close()

    def _block(self) -> list[bytes]:
        """The lines up to the next empty one, without comments; none at the end."""
        lines: list[bytes] = []
        while line := self.response.readline():
            if line == b"\n":
                if lines:
                    break
            elif not line.startswith(b":"):
                lines.append(line.strip())
        return lines
