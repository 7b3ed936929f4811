"""Readiness asks the servers at most once a second, however many ask for it, and tells at once that the process stops."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from api_rig import services_of
from flask import Flask
from support.fake_clock import FakeClock

from api.readiness import Readiness
from api.server.shutdown_flag import SharedFlag
from inference.container import Services
from inference.errors import ServiceUnavailable


class Store:
    """A task store that counts its probes, and answers them when the test lets it."""

    def __init__(self) -> None:
        self.pings = 0
        self.is_down = False
        self.asked, self.answers = threading.Event(), threading.Event()
        self.answers.set()

    def ping(self) -> None:
        self.pings += 1
        self.asked.set()
        assert self.answers.wait(60)
        if self.is_down:
            raise ServiceUnavailable("the task store does not answer: at an address", public="the task store does not answer")


class Rig:
    def __init__(self, services: Services) -> None:
        fake: Any = Store()
        self.store: Store = fake
        services.__dict__["store"] = fake
        self.clock, self.stopping = FakeClock(), SharedFlag()
        self.readiness = Readiness(services, self.stopping, self.clock)

    def task_store(self) -> str:
        return self.readiness.checks()["task_store"]


@pytest.fixture
def rig(app: Flask) -> Rig:
    return Rig(services_of(app))


def test_a_result_is_given_again_for_a_second(rig: Rig) -> None:
    assert [rig.task_store() for _ in range(100)] == ["ok"] * 100
    rig.store.is_down = True
    rig.clock.advance(0.9)
    assert (rig.task_store(), rig.store.pings) == ("ok", 1)
    rig.clock.advance(0.2)
    assert (rig.task_store(), rig.store.pings) == ("the task store does not answer", 2)


def test_a_flood_while_a_server_is_slow_asks_it_once(rig: Rig) -> None:
    rig.store.answers.clear()
    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(rig.task_store) for _ in range(200)]
        assert rig.store.asked.wait(60)
        rig.store.answers.set()
        assert {answer.result(60) for answer in answers} == {"ok"}
    assert rig.store.pings == 1


def test_a_process_that_stops_says_so_at_once(rig: Rig) -> None:
    assert rig.task_store() == "ok"
    rig.stopping.set()
    assert rig.readiness.checks() == {"process": "stopping"}
