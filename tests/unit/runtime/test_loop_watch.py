"""Watch over loops: the ones that make no turn are named, those that turn, idle or end are not."""

from __future__ import annotations

import threading

from support.fake_clock import FakeClock

from inference.runtime.health import OK, progress_check
from inference.runtime.loop_watch import LoopWatch


def test_a_loop_that_makes_no_turn_for_its_limit_is_stuck_until_it_turns_again() -> None:
    clock = FakeClock()
    watch = LoopWatch(clock)
    with watch.watched("batch", 10):
        clock.advance(10)
        assert watch.stuck() == {}
        clock.advance(1)
        assert watch.stuck() == {"batch": 11}
        watch.turn()
        assert watch.stuck() == {}
        clock.advance(11)
    assert watch.stuck() == {}, "a loop that has ended"


def test_each_thread_has_its_own_loop() -> None:
    clock, ready, end = FakeClock(), threading.Event(), threading.Event()
    watch = LoopWatch(clock)

    def other() -> None:
        with watch.watched("other", 10):
            ready.set()
            end.wait(60)

    thread = threading.Thread(target=other)
    thread.start()
    assert ready.wait(60)
    try:
        with watch.watched("own", 10):
            clock.advance(11)
            watch.turn()  # of this thread's loop alone
            assert watch.stuck() == {"other": 11}
    finally:
        end.set()
        thread.join()


def test_a_turn_on_a_thread_without_a_loop_does_nothing() -> None:
    watch = LoopWatch(FakeClock())
    watch.turn()
    assert (watch.stuck(), watch.is_watching) == ({}, False)


def test_the_check_names_what_is_stuck_and_for_how_long() -> None:
    assert progress_check({}) == OK
    assert progress_check({"fetch-0": 300.4, "batch-0": 5}) == (
        "fetch-0 has made no progress for 300 s; batch-0 has made no progress for 5 s"
    )
