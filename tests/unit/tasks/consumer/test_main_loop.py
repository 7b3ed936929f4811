"""Calls from the pipeline's threads to Celery's main loop: in order, each once, and one that fails stops no other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery
from kombu.asynchronous import Hub
from support.fake_clock import FakeClock

from inference.runtime.health import OK
from inference.runtime.loop_watch import TURN_LIMIT_S, LoopWatch
from tasks.consumer.main_loop import MainLoop


class Dispatcher:
    """Dispatcher of events."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.flushed = 0

    def send(self, kind: str, **fields: Any) -> None:
        self.sent.append((kind, fields))

    def flush(self) -> None:
        self.flushed += 1


class ManualHub(Hub):
    """Time passes when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.later: list[Callable[[], None]] = []

    def call_later(self, _delay_s: float, callback: Callable[[], None]) -> None:
        self.later.append(callback)

    def call_repeatedly(self, _interval_s: float, callback: Callable[[], None]) -> None:
        self.repeated = callback


class TaskConsumer:
    """kombu's consumer of the queues of tasks."""

    def __init__(self) -> None:
        self.queues = ["predict.digits"]


class Consumer:
    """Part of Celery's consumer that the loop uses."""

    def __init__(self) -> None:
        self.hub = ManualHub()
        self.event_dispatcher: Dispatcher | None = Dispatcher()
        self.task_consumer: TaskConsumer | None = TaskConsumer()


@pytest.fixture
def loop() -> MainLoop:
    loop = MainLoop()
    loop.attach(Consumer())
    return loop


def turn(loop: MainLoop) -> None:
    """Run the hub's callbacks, as one turn of its loop does."""
    for callback in loop._consumer.hub._pop_ready():
        callback()


def fire_timers(loop: MainLoop) -> None:
    """Run everything that the hub is to call later, as if its time had come."""
    later, loop._consumer.hub.later = loop._consumer.hub.later, []
    for callback in later:
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


def test_events_are_published_together(loop: MainLoop) -> None:
    for kind in ("task-received", "task-started", "task-succeeded"):
        loop.send_event(kind, uuid="a")
    dispatcher = loop._consumer.event_dispatcher
    assert dispatcher.sent == []
    fire_timers(loop)
    assert [kind for kind, _ in dispatcher.sent] == ["task-received", "task-started", "task-succeeded"]
    assert dispatcher.flushed == 1


def test_the_events_of_many_messages_are_one_message(loop: MainLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery's own dispatcher publishes after 24 else."""
    published: list[int] = []
    with Celery(broker="memory://") as app, app.connection() as connection:
        dispatcher = app.events.Dispatcher(connection, buffer_group=["task"])
        monkeypatch.setattr(dispatcher.producer, "publish", lambda events, **_: published.append(len(events)))
        loop._consumer.event_dispatcher = dispatcher
        for number in range(100):
            loop.send_event("task-received", uuid=str(number))
        fire_timers(loop)
    assert published == [100]


def test_an_event_has_the_time_at_which_it_happened(loop: MainLoop) -> None:
    before = time.time()
    loop.send_event("task-received", uuid="a")
    after = time.time()
    time.sleep(0.01)
    loop.publish_events()
    ((_, fields),) = loop._consumer.event_dispatcher.sent
    assert before <= fields["timestamp"] <= after
    assert fields["uuid"] == "a"


def test_events_of_a_lost_connection_go_to_the_next(loop: MainLoop) -> None:
    lost = loop._consumer.event_dispatcher
    loop._consumer.event_dispatcher = None
    loop.send_event("task-succeeded", uuid="a")
    fire_timers(loop)
    loop.attach(Consumer())
    fire_timers(loop)
    assert [kind for kind, _ in loop._consumer.event_dispatcher.sent] == ["task-succeeded"]
    assert lost.sent == []


def test_events_after_published_ones_are_published_too(loop: MainLoop) -> None:
    for kind in ("task-received", "task-started"):
        loop.send_event(kind, uuid="a")
        fire_timers(loop)
    assert [kind for kind, _ in loop._consumer.event_dispatcher.sent] == ["task-received", "task-started"]


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


def test_a_loop_that_does_not_turn_is_stuck_and_one_that_waits_for_the_broker_is_not() -> None:
    clock = FakeClock()
    loop, consumer = MainLoop(), Consumer()
    loop.watch = LoopWatch(clock)
    loop.attach(consumer)
    loop.begin(consumer)
    clock.advance(10 * TURN_LIMIT_S)
    assert loop.watch.stuck() == {}, "the broker takes long to answer before the first turn"
    consumer.hub.repeated()
    clock.advance(TURN_LIMIT_S + 1)
    assert loop.watch.stuck() == {"the main loop": TURN_LIMIT_S + 1}
    consumer.hub.repeated()  # idle: the hub calls its timers
    assert loop.watch.stuck() == {}
    loop.end()  # the connection is lost
    clock.advance(10 * TURN_LIMIT_S)
    assert loop.watch.stuck() == {}


def test_messages_are_consumed_while_there_is_a_connection_and_a_queue() -> None:
    loop, consumer = MainLoop(), Consumer()
    assert loop.consumption() == "no connection to the broker"
    loop.attach(consumer)
    loop.begin(consumer)
    assert loop.consumption() == "no connection to the broker"
    consumer.hub.repeated()
    assert loop.consumption() == OK
    assert consumer.task_consumer is not None
    consumer.task_consumer.queues.clear()  # as cancel_consumer does
    assert loop.consumption() == "no queue is consumed: add_consumer starts that again"
    loop.end()
    assert loop.consumption() == "no connection to the broker"
