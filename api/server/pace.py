"""Least rate of what clients send and read, as mod_reqtimeout and Kestrel have it: nobody keeps a connection by a byte a second.

The waiting for a client counts, and not the work between: a busy service holds nobody up to blame.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

import gevent
from gunicorn.http.unreader import SocketUnreader

from api.server.body_budget import BodyBudget
from inference.errors import RequestTimeout

_MAX_TURN_S = 0.005
#: A call that took longer has waited, and let others go on.
_WAIT_S = 0.001
#: A timeout of 0 would be another thing: not to wait at all.
_SHORTEST_S = 0.001
#: Answers that the system takes before they are sent. Without a limit its buffer grows to 4 MiB, and takes more only when a third
#: of it is free: a client that reads 40 KB/s seems to stand still for half a minute.
_MAX_UNSENT_BYTES = 2**17
_NO_LINGER = b"\1\0\0\0\0\0\0\0"


class Pace:
    """Every `min_bytes` of a transfer come within `timeout_s` of waiting.

    Args:
        timeout_s: the longest standstill too.
        min_bytes_per_s: the least rate over `timeout_s`.
    """

    def __init__(self, timeout_s: float, min_bytes_per_s: int) -> None:
        self.timeout_s = timeout_s
        self.min_bytes_per_s = min_bytes_per_s
        self._min_bytes = timeout_s * min_bytes_per_s
        self.restart()

    def restart(self) -> None:
        """Begin with another transfer."""
        self._left_s = self.timeout_s
        self._left_bytes = self._min_bytes

    @property
    def too_slow(self) -> str:
        """The error for a client whose bytes have not come."""
        rate = f"fewer than {self.min_bytes_per_s} bytes a second over {self.timeout_s:g} s"
        return f"the request body came too slowly: {rate}"

    @property
    def left_s(self) -> float:
        """How long the next bytes may be waited for."""
        return max(self._left_s, _SHORTEST_S)

    def passed(self, size: int, waited_s: float) -> None:
        """Note that `size` bytes came after this time."""
        self._left_bytes -= size
        if self._left_bytes <= 0:
            self.restart()
        else:
            self._left_s -= waited_s


class HeadPace(Pace):
    """A request's head comes within `timeout_s` of waiting, whatever its size."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(timeout_s, 0)

    @property
    def too_slow(self) -> str:
        return f"the head of the request took more than {self.timeout_s:g} s"

    def passed(self, size: int, waited_s: float) -> None:  # noqa: ARG002 it has no least rate
        self._left_s -= waited_s


def show_progress(listener: socket.socket) -> None:
    """Let writing to the connections that a socket accepts go on as their clients read, where the system has an option for it."""
    with contextlib.suppress(AttributeError, OSError):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _MAX_UNSENT_BYTES)


class Turn:
    """Time that a connection has the event loop to itself: gevent reads what is there without a look at other greenlets."""

    def __init__(self) -> None:
        self._ends_at = time.monotonic() + _MAX_TURN_S

    def go_on(self, began: float) -> None:
        """Let others have their turn, where a call that began then has not waited and so has not done it, and ours is over."""
        now = time.monotonic()
        if now - began > _WAIT_S:
            self._ends_at = now + _MAX_TURN_S
        elif now > self._ends_at:
            gevent.sleep(0)
            self._ends_at = time.monotonic() + _MAX_TURN_S


class PacedUnreader(SocketUnreader):  # type: ignore[misc] # gunicorn has no types
    """Bytes of requests, whose reading raises RequestTimeout where they come too slowly."""

    #: what is received at once; a body's steps (64 KiB) are copied out of it, each with all that follows
    max_body_chunk = 2**18

    def __init__(self, client: Any, pace: Pace) -> None:
        super().__init__(client)
        self.begin(pace)
        self.turn = Turn()

    def begin(self, pace: Pace) -> None:
        """Begin with another transfer, at this pace."""
        self._pace = pace
        pace.restart()

    def chunk(self, size_hint: int | None = None) -> bytes:
        pace = self._pace
        began = time.monotonic()
        self.sock.settimeout(pace.left_s)
        try:
            data: bytes = super().chunk(size_hint)
        except TimeoutError as error:
            raise RequestTimeout(pace.too_slow) from error
        pace.passed(len(data), time.monotonic() - began)
        self.turn.go_on(began)
        return data


class PacedSocket:
    """A client's socket that resets the connection when the client reads too slowly, or too much waits to be read.

    Args:
        unsent: limit for the answers of all clients that the system has not taken yet.
    """

    def __init__(self, client: Any, pace: Pace, unsent: BodyBudget) -> None:
        self._client = client
        self._pace = pace
        self._unsent = unsent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def sendall(self, data: bytes) -> None:
        """Raises OSError: the client does not read."""
        self._pace.restart()
        rest = memoryview(data)
        rest = rest[self._send(rest) :]
        if rest:
            self._send_rest(rest)

    def _send_rest(self, rest: memoryview) -> None:
        size = len(rest)
        if not self._unsent.has_room(size):
            self._reset()
            raise ConnectionAbortedError("too many answers wait to be read")
        self._unsent.add(size)
        try:
            while rest:
                rest = rest[self._send(rest) :]
        finally:
            self._unsent.add(-size)

    def _send(self, data: memoryview) -> int:
        began = time.monotonic()
        self._client.settimeout(self._pace.left_s)
        try:
            sent: int = self._client.send(data)
        except TimeoutError:
            self._reset()
            raise
        self._pace.passed(sent, time.monotonic() - began)
        return sent

    def _reset(self) -> None:
        """Let closing the socket destroy what its client has not read."""
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
