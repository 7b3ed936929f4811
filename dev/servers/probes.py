"""Probes that check that a server answers in its own protocol: an open port alone does not mean that it works."""

from __future__ import annotations

import http.client
import socket
import struct
from collections.abc import Callable

from dev.servers.ports import HOST

_TIMEOUT_S = 3.0


def redis(port: int) -> bool:
    """PING."""
    return _exchange(port, b"PING\r\n", lambda stream: stream(5) == b"+PONG")


def minio(port: int) -> bool:
    """Check that it is live, and that its S3 API refuses an unknown client; it answers 503 until its users are loaded."""
    try:
        live, offline = _get(port, "/minio/health/live")
        refused, _ = _get(port, "/")
    except (OSError, http.client.HTTPException):
        return False
    return (live, offline, refused) == (200, None, 403)


def s3(port: int) -> bool:
    """Check that its S3 API refuses an unknown client."""
    try:
        status, _ = _get(port, "/")
    except (OSError, http.client.HTTPException):
        return False
    return status == http.client.FORBIDDEN


def kafka(port: int) -> bool:
    """Check that the answer to a Metadata request (version 1, without topics) names at least one broker."""
    header = struct.pack(">hhih", 3, 1, 7, -1)
    request = header + struct.pack(">i", 0)

    def knows_a_broker(read: _Read) -> bool:
        _size, correlation, brokers = struct.unpack(">iii", read(12))
        return bool(correlation == 7 and brokers > 0)  # noqa: PLR2004 the number that was sent

    return _exchange(port, struct.pack(">i", len(request)) + request, knows_a_broker)


def mongo(port: int) -> bool:
    """Check the answer to the command `hello`, sent as an OP_MSG."""
    fields = b"\x10hello\0" + struct.pack("<i", 1) + b"\x02$db\0" + struct.pack("<i", 6) + b"admin\0"
    document = struct.pack("<i", len(fields) + 5) + fields + b"\0"
    body = struct.pack("<i", 0) + b"\0" + document
    header = struct.pack("<iiii", 16 + len(body), 1, 0, 2013)

    def is_ok(read: _Read) -> bool:
        size = struct.unpack("<i", read(4))[0]
        return b"\x01ok\0" + struct.pack("<d", 1.0) in read(size - 4)

    return _exchange(port, header + body, is_ok)


def rabbitmq(port: int) -> bool:
    """Check that the answer to AMQP's protocol header is Connection.Start: a method frame (1), channel 0, class 10, method 10."""

    def is_start(read: _Read) -> bool:
        kind, channel, _size, class_id, method_id = struct.unpack(">BHIHH", read(11))
        return bool((kind, channel, class_id, method_id) == (1, 0, 10, 10))

    return _exchange(port, b"AMQP\x00\x00\x09\x01", is_start)


_Read = Callable[[int], bytes]


def _exchange(port: int, request: bytes, judge: Callable[[_Read], bool]) -> bool:
    """Send a request and judge the answer; `judge` gets a function that reads an exact number of bytes."""
    try:
        with socket.create_connection((HOST, port), timeout=_TIMEOUT_S) as connection, connection.makefile("rb") as stream:
            connection.sendall(request)
            return judge(stream.read)
    except (OSError, struct.error):
        return False


def _get(port: int, path: str) -> tuple[int, str | None]:
    connection = http.client.HTTPConnection(HOST, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.headers.get("x-minio-server-status")
    finally:
        connection.close()
