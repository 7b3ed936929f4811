"""Minimum rate at which clients send and read, as in mod_reqtimeout and Kestrel: a byte a second does not keep a connection open.

Only the time that the service waits for a client counts: work of a busy service in between is not the client's fault.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any

import gevent
from gunicorn.http.unreader import SocketUnreader

from api.server.body_budget import BodyBudget
from inference.errors import RequestTimeout

_MAX_TURN_S = 0.005
#: Seconds after which a call must have waited, so that other greenlets ran.
_MIN_WAIT_S = 0.001
#: Minimum timeout: 0 would mean not to wait at all.
_MIN_TIMEOUT_S = 0.001
#: Bytes of answers that the system's send buffer takes. Without a limit the buffer grows to 4 MiB, and takes more only when a
#: third of it is free: a client that reads 40 KB/s would seem to stall for half a minute.
_MAX_UNSENT_BYTES = 2**17
#: libev's number of the event that a socket has something to read.
_READABLE = 1
_NO_LINGER = b"\1\0\0\0\0\0\0\0"


class Pace:
    """Minimum rate of a transfer, in which only the time spent waiting counts.

    Args:
        timeout_s: period over which the rate is measured; also the longest pause.
        min_bytes_per_s: minimum rate over `timeout_s`.
    """

    def __init__(self, timeout_s: float, min_bytes_per_s: int) -> None:
        self.timeout_s = timeout_s
        self.min_bytes_per_s = min_bytes_per_s
        self._min_bytes = timeout_s * min_bytes_per_s
        self.restart()

    def restart(self) -> None:
        """Begin another transfer."""
        self._left_s = self.timeout_s
        self._left_bytes = self._min_bytes

    @property
    def too_slow(self) -> str:
        """The error text for a client whose bytes did not come in time."""
        rate = f"fewer than {self.min_bytes_per_s} bytes a second over {self.timeout_s:g} s"
        return f"the request body came too slowly: {rate}"

    @property
    def left_s(self) -> float:
        """Seconds to wait for the next bytes."""
        return max(self._left_s, _MIN_TIMEOUT_S)

    def passed(self, size: int, waited_s: float) -> None:
        """Note that `size` bytes came after waiting for `waited_s`."""
        self._left_bytes -= size
        if self._left_bytes <= 0:
            self.restart()
        else:
            self._left_s -= waited_s


class HeadPace(Pace):
    """Limit for a request's head: it must come within `timeout_s` of waiting, at any size."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(timeout_s, 0)

    @property
    def too_slow(self) -> str:
        return f"the head of the request took more than {self.timeout_s:g} s"

    def passed(self, size: int, waited_s: float) -> None:  # noqa: ARG002 a head has no minimum rate
        self._left_s -= waited_s


def show_progress(listener: socket.socket) -> None:
    """Limit the send buffers of the connections of a listening socket, so that writing progresses as the clients read.

    The call has no effect if the system has no such option.
    """
    with contextlib.suppress(AttributeError, OSError):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _MAX_UNSENT_BYTES)


class Turn:
    """Time for which a connection may keep the event loop: gevent reads available bytes without running other greenlets."""

    def __init__(self) -> None:
        self._ends_at = time.monotonic() + _MAX_TURN_S

    def go_on(self, began: float) -> None:
        """Let other greenlets run if this turn is over; a call since `began` that has waited has done so already."""
        now = time.monotonic()
        if now - began > _MIN_WAIT_S:
            self._ends_at = now + _MAX_TURN_S
        elif now > self._ends_at:
            gevent.sleep(0)
            self._ends_at = time.monotonic() + _MAX_TURN_S


class PacedUnreader(SocketUnreader):  # type: ignore[misc] # gunicorn has no types
    """Reader of request bytes that raises RequestTimeout if they come too slowly."""

    #: maximum bytes received at once; a body's steps (64 KiB) are cut off it, and each cut copies the rest
    max_body_chunk = 2**18

    def __init__(self, client: Any, pace: Pace) -> None:
        super().__init__(client)
        self.begin(pace)
        self.turn = Turn()

    def begin(self, pace: Pace) -> None:
        """Begin another transfer with this pace."""
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
    """Socket of a client; resets the connection if the client reads too slowly, or if too many bytes of answers are unread.

    Args:
        unsent: limit for the bytes of answers to all clients that the system's buffers have not taken yet.
    """

    def __init__(self, client: Any, pace: Pace, unsent: BodyBudget) -> None:
        self._client = client
        self._pace = pace
        self._unsent = unsent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def sendall(self, data: bytes) -> None:
        """Send all bytes. Raises OSError: the client has disconnected, or reads too slowly."""
        self._pace.restart()
        rest = memoryview(data)
        rest = rest[self._send(rest) :]
        if rest:
            self._send_rest(rest)

    def watch_end(self, call: Callable[[], None]) -> Callable[[], None]:
        """Call `call`, in a greenlet of its own, when the client disconnects; returns a function that ends the watch.

        A client that sends something meanwhile, such as its next request, is no longer watched.
        """
        watcher: Any = gevent.get_hub().loop.io(self._client.fileno(), _READABLE)

        def look() -> None:
            try:
                is_at_end = not self._client._sock.recv(1, socket.MSG_PEEK)  # noqa: SLF001 gevent's recv may wait
            except BlockingIOError:
                return
            except OSError:
                is_at_end = True
            watcher.stop()
            if is_at_end:
                gevent.spawn(call)

        watcher.start(look)
        end_watch: Callable[[], None] = watcher.close
        return end_watch

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
        """Discard unread bytes when the socket is closed, by a TCP reset."""
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
