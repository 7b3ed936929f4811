"""How fast clients have to be, and that none of them has the event loop to itself."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config

from api import pace
from api.body_budget import BodyBudget
from api.connections import Connection
from api.pace import Pace, PacedSocket, PacedUnreader
from api.stopping import SharedFlag
from inference.errors import RequestTimeout

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


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
        app = SimpleNamespace(body_timeout_s=1, body_min_bytes_per_s=1, stopping=SharedFlag())

        def handle_request(*_: Any) -> None:
            events.append("request")

        def first_bytes(connection: Connection) -> bytes:
            return connection.read()

        worker: Any = SimpleNamespace(
            cfg=Config(),
            app=app,
            bodies=BodyBudget(2**20),
            unsent=BodyBudget(2**20),
            handle_request=handle_request,
            first_bytes=first_bytes,
        )
        pair[1].sendall(REQUEST * 5)
        pair[1].shutdown(socket.SHUT_WR)
        Connection(worker, None, pair[0], ("127.0.0.1", 1)).serve()
        assert events == ["others", "request"] * 5
