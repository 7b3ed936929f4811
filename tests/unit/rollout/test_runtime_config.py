"""The configuration as commands have changed it: read at most once a second, by one for all who ask at that moment."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from inference.errors import ServiceUnavailable
from inference.models.registry import ModelRegistry
from inference.rollout.desired_state import DesiredState
from inference.rollout.runtime_config import RuntimeConfig
from inference.settings import Settings


class Desired:
    """A desired state whose reading the test may hold up, or let fail."""

    def __init__(self) -> None:
        self.state = DesiredState(served="old")
        self.reads = 0
        self.gate = threading.Event()
        self.gate.set()
        self.is_down = False

    def read(self) -> DesiredState:
        self.reads += 1
        assert self.gate.wait(10)
        if self.is_down:
            raise ServiceUnavailable("taken down by the test")
        return self.state


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def desired() -> Desired:
    return Desired()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def configuration(repository: Path, desired: Any, clock: Clock) -> RuntimeConfig:
    settings = Settings(models=(repository / "models" / "digits",))
    return RuntimeConfig(settings, ModelRegistry.load(settings), desired, clock=clock)


def test_it_is_read_once_a_second(configuration: RuntimeConfig, desired: Desired, clock: Clock) -> None:
    assert [configuration.now().state.served for _ in range(5)] == ["old"] * 5
    assert desired.reads == 1
    desired.state = DesiredState(served="new")
    clock.now += 1
    assert [configuration.now().state.served for _ in range(5)] == ["new"] * 5
    assert desired.reads == 2


def test_before_the_first_reading_everybody_reads(configuration: RuntimeConfig, desired: Desired) -> None:
    """Nobody goes on with a state that is none."""
    desired.gate.clear()
    found: list[str | None] = []
    threads = [threading.Thread(target=lambda: found.append(configuration.now().state.served)) for _ in range(3)]
    for thread in threads:
        thread.start()
    desired.gate.set()
    for thread in threads:
        thread.join(10)
    assert found == ["old"] * 3


def test_while_one_reads_the_others_go_on_with_what_is_known(
    configuration: RuntimeConfig, desired: Desired, clock: Clock
) -> None:
    configuration.now()
    clock.now += 1
    desired.gate.clear()
    desired.state = DesiredState(served="new")
    found: list[str | None] = []
    reader = threading.Thread(target=lambda: found.append(configuration.now().state.served))
    reader.start()
    while desired.reads < 2:
        pass
    assert configuration.now().state.served == "old"
    desired.gate.set()
    reader.join(10)
    assert found == ["new"]


def test_a_reading_that_failed_is_tried_again_at_once(configuration: RuntimeConfig, desired: Desired, clock: Clock) -> None:
    configuration.now()
    clock.now += 1
    desired.is_down = True
    for _ in range(2):
        with pytest.raises(ServiceUnavailable):
            configuration.now()
    assert desired.reads == 3
