"""Health of a relay: each loop turns, a sink or store that is down stops none, and one that hangs is named."""

from __future__ import annotations

import threading

from support.fake_clock import FakeClock
from support.waiting import until

from inference.errors import ServiceUnavailable
from inference.relay.health import RelayHealth
from inference.relay.upload_maintenance import Housekeeping
from inference.runtime.health import OK
from inference.runtime.loop_watch import LoopWatch


def test_a_job_that_hangs_is_named_and_one_that_fails_is_not() -> None:
    clock, stopping, hangs, goes_on = FakeClock(), threading.Event(), threading.Event(), threading.Event()

    def fail() -> float:
        raise ServiceUnavailable("down")

    def hang() -> float:
        hangs.set()
        goes_on.wait(60)
        return 1.0

    runner = Housekeeping({"fails": fail, "hangs": hang})
    runner.watch = LoopWatch(clock)
    health = RelayHealth({"housekeeping": runner}, stopping)
    assert (health.live(), health.ready()) == ({"threads": OK}, {"process": OK})

    def run() -> None:
        with runner.watch.watched("housekeeping", runner.turn_limit_s):
            runner.run(stopping)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert hangs.wait(60)
        clock.advance(runner.turn_limit_s)
        assert health.live() == {"threads": OK}
        clock.advance(1)
        assert health.live() == {"threads": f"housekeeping has made no progress for {runner.turn_limit_s + 1:.0f} s"}
        goes_on.set()
        until(lambda: health.live() == {"threads": OK}, "it goes on")
    finally:
        goes_on.set()
        stopping.set()
        thread.join()
    assert health.ready() == {"process": "stopping"}
