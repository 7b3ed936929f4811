"""Minimum pace of clients: none of them has the event loop to itself."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config

from api.server import connections
from api.server import minimum_pace as pace
from api.server.body_budget import BodyBudget
from api.server.connections import Connection
from api.server.minimum_pace import HeadPace, Pace, PacedSocket, PacedUnreader
from api.server.shutdown_flag import SharedFlag
from inference.errors import RequestTimeout

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
#: A request's head; its body of two bytes has begun.
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nb"


class TestPace:
    def test_a_standstill_ends_and_so_does_a_rate_that_is_too_low(self) -> None:
        slow = Pace(10, 100)
        for _ in range(9):
            slow.passed(99, 1)
        assert 0 < slow.left_s <= 1
        slow.passed(99, 1)
        assert slow.left_s < 0.1

    def test_the_least_rate_lasts(self) -> None:
        steady = Pace(10, 100)
        for _ in range(50):
            steady.passed(100, 1)
            assert steady.left_s >= 1

    def test_much_that_came_at_once_buys_no_time_later(self) -> None:
        burst = Pace(10, 100)
        burst.passed(10**9, 0.1)
        assert burst.left_s == 10

    def test_a_head_has_its_time_whatever_its_size(self) -> None:
        head = HeadPace(10)
        for _ in range(9):
            head.passed(10**6, 1)
        assert 0 < head.left_s <= 1

    def test_another_transfer_begins_anew(self) -> None:
        paced = Pace(10, 100)
        paced.passed(1, 9)
        paced.restart()
        assert paced.left_s == 10


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def make_worker(handle_request: Callable[..., None], *, body_timeout_s: float) -> Any:
    """The parts of an HttpWorker that a connection needs."""
    return SimpleNamespace(
        cfg=Config(),
        app=SimpleNamespace(body_timeout_s=body_timeout_s, body_min_bytes_per_s=1, stopping=SharedFlag()),
        bodies=BodyBudget(2**20),
        unsent=BodyBudget(2**20),
        handle_request=handle_request,
        first_bytes=lambda connection: connection.read(),
        requests_in_flight=0,
        log=SimpleNamespace(requests=SimpleNamespace(note_refused=lambda _status, _start: None)),
    )


class TestPacedConnections:
    def test_a_body_that_does_not_come(self, pair: tuple[socket.socket, socket.socket]) -> None:
        unreader = PacedUnreader(pair[0], Pace(0.05, 100))
        pair[1].sendall(b"abc")
        assert unreader.chunk() == b"abc"
        with pytest.raises(RequestTimeout, match=r"100 bytes a second over 0\.05 s"):
            unreader.chunk()

    def test_an_answer_that_is_not_read(self, pair: tuple[socket.socket, socket.socket]) -> None:
        unsent = BodyBudget(2**24)
        with pytest.raises(TimeoutError):
            PacedSocket(pair[0], Pace(0.05, 100), unsent).sendall(bytes(2**24))
        assert unsent.used == 0

    def test_more_answers_than_may_wait_to_be_read(self, pair: tuple[socket.socket, socket.socket]) -> None:
        client = PacedSocket(pair[0], Pace(5, 100), BodyBudget(2**20))
        client.sendall(bytes(100))
        with pytest.raises(ConnectionAbortedError):
            client.sendall(bytes(2**24))

    def test_requests_that_came_together_leave_turns_to_others(
        self, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        events: list[str] = []
        monkeypatch.setattr(pace, "_MAX_TURN_S", 0)
        monkeypatch.setattr(pace.gevent, "sleep", lambda _seconds: events.append("others"))
        worker = make_worker(lambda *_: events.append("request"), body_timeout_s=1)
        pair[1].sendall(REQUEST * 5)
        pair[1].shutdown(socket.SHUT_WR)
        Connection(worker, None, pair[0], ("127.0.0.1", 1)).serve()
        assert events == ["others", "request"] * 5

    @pytest.mark.parametrize(
        "pieces",
        [
            [REQUEST[:9], REQUEST[9:]],
            [POST, b"b", REQUEST[:9], REQUEST[9:]],
            [POST, b"b" + REQUEST[:9], REQUEST[9:]],
        ],
        ids=["a head", "a head after a body", "a head that began with a body's end"],
    )
    def test_a_head_has_its_own_time(self, pair: tuple[socket.socket, socket.socket], pieces: list[bytes]) -> None:
        served: list[str] = []

        def handle_request(_listening: Any, request: Any, *_: Any) -> None:
            request.body.read()
            served.append(request.path)

        def send() -> None:
            for index, piece in enumerate(pieces):
                is_of_head = piece == REQUEST[9:]
                time.sleep((0.6 if is_of_head else 0.3) if index else 0)
                pair[1].sendall(piece)
            pair[1].shutdown(socket.SHUT_WR)

        sending = threading.Thread(target=send)
        sending.start()
        Connection(make_worker(handle_request, body_timeout_s=0.5), None, pair[0], ("127.0.0.1", 1)).serve()
        sending.join()
        assert served == ["/"] * (1 + (POST in pieces))

    def test_a_head_that_does_not_come_is_no_body(
        self, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connections, "_HEAD_TIMEOUT_S", 0.1)
        monkeypatch.setattr(connections, "_SILENCE_S", 0.1)
        pair[1].sendall(REQUEST[:9])
        Connection(make_worker(lambda *_: None, body_timeout_s=0.05), None, pair[0], ("127.0.0.1", 1)).serve()
        answer = pair[1].recv(2**16)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"the head of the request took more than 0.1 s" in answer
