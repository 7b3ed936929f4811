"""Connections of an API process, from the first byte to the end, and the gunicorn worker that serves them.

accept ──▶ idle ──first bytes──▶ head ──▶ request ──▶ answer ──▶ idle …
            │                      │                     │
    api.keepalive_s,           too slow,           Connection: close
  no room, or stopping        or not HTTP
"""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from functools import partial
from typing import Any

import gevent
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.workers.ggevent import GeventWorker

from api.server.access_log import AccessLog
from api.server.arbiter import END_WORKER
from api.server.body_budget import BodyBudget
from api.server.connection_counts import ConnectionCounts
from api.server.http_messages import HttpBody, HttpParser, check_protocol, refusal, response_bytes
from api.server.line_writer import LineWriter
from api.server.minimum_pace import HeadPace, Pace, PacedSocket
from api.telemetry.request_metrics import count_unreadable_request
from inference.errors import InferenceError
from inference.metrics.api import http_requests_in_flight
from inference.runtime.memory import give_memory_back
from inference.runtime.open_files import out_of_files, report

logger = logging.getLogger(__name__)

#: Seconds within which a request's head must arrive after its first byte.
_HEAD_TIMEOUT_S = 10.0
#: Seconds for which the rest of a request is read after its answer: an immediate close could destroy the answer in transit.
_LINGER_S = 5.0
#: Seconds of silence after which a client is taken to have sent everything.
_SILENCE_S = 1.0
#: Seconds for which a stopping process serves new requests on open connections; each answer says that the connection ends.
_LAST_REQUESTS_S = 0.5
#: Minimum idle seconds of a connection that is closed to make room for another.
_MIN_IDLE_S = 1.0
_POLL_INTERVAL_S = 0.2
_READ_BYTES = 8192
#: Bytes of a request that are kept for the answer to an invalid one: method and path.
_START_BYTES = 200
#: The same for a longer head: gunicorn searches the whole head again for each piece.
_HEAD_READ_BYTES = 2**17
_END_OF_HEAD = b"\r\n\r\n"

_NO_FILES_PAUSE_S = 0.05
#: Total size of released bodies after which the C library may keep much free memory.
_MUCH_RELEASED_BYTES = 16 * 2**20
_TRIM_INTERVAL_S = 1.0


class HttpWorker(GeventWorker):  # type: ignore[misc] # gunicorn has no types
    """A process that serves HTTP, with a greenlet for each connection.

    Args:
        arguments: the arguments of gunicorn's worker; their application has `keepalive_s` and `drain_timeout_s`.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.log.requests = AccessLog(self.app.log_settings, LineWriter())
        self._pool = Pool(self.worker_connections)
        self.bodies = BodyBudget(self.app.body_budget_bytes)
        #: bytes of answers that clients have not read
        self.unsent = BodyBudget(self.app.body_budget_bytes)
        #: idle connections, the longest idle first, with the start of the wait on the monotonic clock
        self._idle: dict[Connection, float] = {}
        self.counts = ConnectionCounts(self.app.max_connections_per_address, self.app.trusted_proxies)
        #: requests whose head was read and whose answer is not sent completely
        self.requests_in_flight = 0

    def run(self) -> None:
        """Serve until the main process ends this one; then let open connections finish, within `drain_timeout_s`."""
        listeners = [Listener(sock, self._serve, self._pool, self.make_room) for sock in self.sockets]
        for listener in listeners:
            if self.cfg.workers > 1:
                listener.max_accept = 1  # each process takes its share
            listener.start()
        gevent.spawn(self._give_memory_back)
        while self.alive:
            self.notify()
            gevent.sleep(_POLL_INTERVAL_S)
            self._keep_room()
        for listener in listeners:
            listener.finish()
        self._drain()
        self.log.requests.flush()

    def init_signals(self) -> None:
        """Ignore SIGTERM, which the main process handles; if the main process is gone, `notify` ends this one."""
        super().init_signals()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(END_WORKER, self.handle_exit)
        signal.siginterrupt(END_WORKER, False)

    def notify(self) -> None:
        """Tell the main process that this one is well; called several times a second."""
        super().notify()
        http_requests_in_flight.set(self.requests_in_flight)

    def make_room(self) -> None:
        """Close the connection that has been idle for longest, unless it became idle only just now."""
        connection, since = next(iter(self._idle.items()), (None, 0.0))
        if connection is not None and time.monotonic() - since >= _MIN_IDLE_S:
            del self._idle[connection]
            connection.end_reading()

    def first_bytes(self, connection: Connection) -> bytes:
        """Wait for the first bytes of a connection's next request; empty if the connection is to be closed."""
        self._idle[connection] = time.monotonic()
        data = b""
        try:
            with gevent.Timeout(self.app.keepalive_s if self.alive else _LAST_REQUESTS_S, False):
                data = connection.read()
        finally:
            self._idle.pop(connection, None)
        return data

    def _serve(self, listening: Any, client: Any, address: Any) -> None:
        self._keep_room()
        with self.counts.counted(address[0] if address else "") as has_room:
            if has_room:
                Connection(self, listening, client, address).serve()
            else:
                client.close()  # without an answer: a client with so many connections would read it from none

    def _keep_room(self) -> None:
        if self._pool.full():
            self.make_room()

    def _give_memory_back(self) -> None:
        while True:
            gevent.sleep(_TRIM_INTERVAL_S)
            released = [budget.take_released(_MUCH_RELEASED_BYTES) for budget in (self.bodies, self.unsent)]
            if any(released):
                give_memory_back()

    def _drain(self) -> None:
        ends_at = time.monotonic() + self.app.drain_timeout_s
        self._pool.join(_LAST_REQUESTS_S)
        for connection in list(self._idle):
            connection.end_reading()
        while len(self._pool) and time.monotonic() < ends_at:
            self.notify()
            self._pool.join(_POLL_INTERVAL_S)
        if len(self._pool):
            logger.warning("%d requests had not ended within api.drain_timeout_s", len(self._pool))


class Connection:
    """Connection of one client.

    Args:
        listening: the address of the listening socket.
        client: the gevent socket of the connection.
        address: the client's address, as accept() returns it.
    """

    def __init__(self, worker: HttpWorker, listening: Any, client: Any, address: Any) -> None:
        self._worker = worker
        self._listening = listening
        least = worker.app.body_timeout_s, worker.app.body_min_bytes_per_s
        self._client = PacedSocket(client, Pace(*least), worker.unsent)
        self._address = address
        self._head_pace, self._body_pace = HeadPace(_HEAD_TIMEOUT_S), Pace(*least)
        self._parser = HttpParser(worker.cfg, client, address, self._head_pace)
        #: first bytes of the request
        self._start = b""

    def serve(self) -> None:
        """Serve the requests of the connection one after the other, and close it."""
        try:
            while self._serve_next():
                pass
        except OSError as error:
            logger.debug("a client has disconnected: %s", error)
        except Exception as error:  # noqa: BLE001 also for a bug, the client gets an answer and the process continues
            self._refuse(error)
        finally:
            with contextlib.suppress(OSError):
                self._client.close()

    def read(self, timeout_s: float | None = None) -> bytes:
        """Wait for bytes; empty at the end of the connection. Raises OSError: none came in time, or the connection broke."""
        self._client.settimeout(timeout_s)
        data: bytes = self._client.recv(_READ_BYTES)
        return data

    def end_reading(self) -> None:
        """End a waiting read: it returns the bytes that have come, possibly none."""
        with contextlib.suppress(OSError):
            self._client.shutdown(gevent.socket.SHUT_RD)

    def _serve_next(self) -> bool:
        """Serve one request; returns whether another one may follow."""
        unreader, began = self._parser.unreader, time.monotonic()
        data = unreader.take_buffered() or self._worker.first_bytes(self)
        if not data:
            return False
        unreader.turn.go_on(began)
        unreader.begin(self._head_pace)
        self._start = data[:_START_BYTES]
        request = self._parse(data)
        unreader.begin(self._body_pace)
        request.body.reserve_in(self._worker.bodies)
        if self._worker.app.stopping.is_set:
            request.force_close()
        self._worker.requests_in_flight += 1
        try:
            self._worker.handle_request(self._listening, request, self._client, self._address)
        except StopIteration:  # the answer said Connection: close
            if not request.body.is_at_end:
                self._linger()
            return False
        finally:
            self._worker.requests_in_flight -= 1
            request.body.release()
        return request.body.is_at_end or self._drop(request.body)

    def _parse(self, data: bytes) -> Any:
        check_protocol(data)
        self._parser.unreader.unread(data)
        if _END_OF_HEAD in data:
            return next(self._parser)
        usual_bytes = self._parser.unreader.mxchunk
        self._parser.unreader.mxchunk = _HEAD_READ_BYTES
        try:
            return next(self._parser)
        finally:
            self._parser.unreader.mxchunk = usual_bytes

    def _drop(self, body: HttpBody) -> bool:
        """Read the rest of a body that the application did not read; returns whether its end was reached."""
        with contextlib.suppress(InferenceError), gevent.Timeout(_LINGER_S, False):
            body.drop()
            return True
        return False

    def _refuse(self, error: Exception) -> None:
        """Answer an invalid request, or a bug, with a problem document."""
        problem = refusal(error)
        if problem is None:
            logger.error("a request failed", exc_info=error)
            problem = InferenceError("an unexpected error occurred; the server's log has it")
        else:
            logger.debug("refused a request from %s: %s", self._address[0] if self._address else "?", problem.detail)
        count_unreadable_request(problem.status)
        self._worker.log.requests.note_refused(problem.status, self._start)
        with contextlib.suppress(OSError):
            self._client.sendall(response_bytes(problem, self._start))
            self._linger()

    def _linger(self) -> None:
        with contextlib.suppress(OSError), gevent.Timeout(_LINGER_S, False):
            self._client.shutdown(gevent.socket.SHUT_WR)
            while self.read(_SILENCE_S):
                pass


class Listener(StreamServer):  # type: ignore[misc] # gevent has no types for it
    """Accepts connections on a socket.

    Args:
        serve: called in a greenlet of `pool` with the socket's address, the connection and its peer's address.
        make_room: closes an idle connection, if there is one.
    """

    def __init__(self, sock: Any, serve: Any, pool: Pool, make_room: Any) -> None:
        super().__init__(sock, handle=partial(serve, sock.getsockname()), spawn=pool)
        self._make_room = make_room

    def do_read(self) -> Any:
        """Accept one connection; None if there is none, or if the process has too many open files."""
        try:
            return super().do_read()
        except OSError as error:
            if self.is_fatal_error(error):
                raise
            if out_of_files(error):
                report(error)
                self._make_room()
                self._pause()
            return None  # otherwise the client disconnected before it was accepted

    def finish(self) -> None:
        """Accept the waiting connections, which closing the socket would reset, and close the socket."""
        while not self.full() and (accepted := self.do_read()):
            self.do_handle(*accepted)
        self.close()

    def _pause(self) -> None:
        self.stop_accepting()
        self._timer = self.loop.timer(_NO_FILES_PAUSE_S)
        self._timer.start(self._start_accepting_if_started)
