"""From the pipeline's threads to Celery's main loop: in order, each once, and one that fails stops no other."""

from __future__ import annotations

import threading

import pytest
from kombu.asynchronous import Hub

from tasks.main_loop import MainLoop


class Dispatcher:
    """Of events."""

    def __init__(self) -> None:
        self.flushed = 0

    def flush(self) -> None:
        self.flushed += 1


class Consumer:
    """As much of Celery's as the loop uses."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.event_dispatcher: Dispatcher | None = Dispatcher()


@pytest.fixture
def loop() -> MainLoop:
    loop = MainLoop()
    loop.attach(Consumer())
    return loop


def turn(loop: MainLoop) -> None:
    """What the hub does with its callbacks in one turn of its loop."""
    for callback in loop._consumer.hub._pop_ready():
        callback()


def test_calls_run_in_the_order_they_came(loop: MainLoop) -> None:
    ran: list[int] = []
    for number in range(50):
        loop.call(lambda number=number: ran.append(number))
    assert ran == []
    turn(loop)
    assert ran == list(range(50))


def test_later_turns_run_later_calls(loop: MainLoop) -> None:
    ran: list[str] = []
    for name in ("one", "two", "three"):
        loop.call(lambda name=name: ran.append(name))
        turn(loop)
        turn(loop)
    assert ran == ["one", "two", "three"]


def test_a_call_that_fails_is_logged_and_the_others_run(loop: MainLoop, caplog: pytest.LogCaptureFixture) -> None:
    ran: list[str] = []
    loop.call(lambda: ran.append("before"))
    loop.call(lambda: ran.append(str(1 // 0)))
    loop.call(lambda: ran.append("after"))
    turn(loop)
    assert ran == ["before", "after"]
    assert "the bookkeeping of a message failed" in caplog.text


def test_a_call_may_call_again(loop: MainLoop) -> None:
    ran: list[str] = []
    loop.call(lambda: loop.call(lambda: ran.append("inner")))
    turn(loop)
    assert ran == ["inner"]


def test_events_go_out_with_the_calls_that_made_them(loop: MainLoop) -> None:
    """The dispatcher would hold them back for a turn, and lose them if the connection breaks before it."""
    flushed: list[int] = []
    dispatcher = loop._consumer.event_dispatcher
    for _ in range(3):
        loop.call(lambda: flushed.append(dispatcher.flushed))
    turn(loop)
    assert (flushed, dispatcher.flushed) == ([0, 0, 0], 1)


def test_calls_run_while_events_have_no_dispatcher(loop: MainLoop) -> None:
    loop._consumer.event_dispatcher = None
    ran: list[int] = []
    loop.call(lambda: ran.append(1))
    turn(loop)
    assert ran == [1]


def test_without_a_hub_calls_wait_for_the_end() -> None:
    loop = MainLoop()
    ran: list[int] = []
    loop.call(lambda: ran.append(1))
    assert ran == []
    loop.run_pending()
    loop.run_pending()
    assert ran == [1]


def test_calls_from_many_threads_keep_each_threads_order(loop: MainLoop) -> None:
    ran: list[tuple[int, int]] = []

    def caller(thread: int) -> None:
        for number in range(200):
            loop.call(lambda number=number: ran.append((thread, number)))

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        turn(loop)
    turn(loop)
    for number in range(4):
        assert [call for caller_number, call in ran if caller_number == number] == list(range(200))
