"""Jobs that are done now and then: each at its time, and a failure of one keeps no other."""

from __future__ import annotations

import threading

import pytest
from support.waiting import until

from inference.errors import ServiceUnavailable
from inference.relay import upload_maintenance as housekeeping
from inference.relay.upload_maintenance import Housekeeping


def test_each_is_done_at_its_time_whatever_the_others_do(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(housekeeping, "_RETRY_S", 0.01)
    monkeypatch.setattr(housekeeping, "_RETRY_AFTER_FAULT_S", 0.01)
    done: list[str] = []

    def often() -> float:
        done.append("often")
        return 0.01

    def seldom() -> float:
        done.append("seldom")
        return 3600

    def down() -> float:
        done.append("down")
        raise ServiceUnavailable("the store does not answer")

    def broken() -> float:
        done.append("broken")
        raise KeyError("odd")

    stopping = threading.Event()
    jobs = {"often": often, "seldom": seldom, "a store": down, "a fault": broken}
    thread = threading.Thread(target=Housekeeping(jobs).run, args=(stopping,))
    thread.start()
    try:
        until(lambda: min(map(done.count, ("often", "down", "broken"))) > 3, "each is done again and again")
    finally:
        stopping.set()
        thread.join(10)
    assert not thread.is_alive()
    assert done.count("seldom") == 1
    assert "a store: the store does not answer" in caplog.text
    assert "a fault failed" in caplog.text
