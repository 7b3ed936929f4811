"""The rule by which KEDA and the HorizontalPodAutoscaler change the number of workers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml
from support.fake_clock import FakeClock
from support.service import ROOT

from bench.autoscaler import Autoscaler, Direction, Policy, Rule

MANIFEST = yaml.safe_load((ROOT / "deploy/kubernetes/components/keda/scaler/scaled-object.yaml").read_text(encoding="utf-8"))
RULE = Rule(
    targets=(100, 10),
    activations=(0, 0),
    min_workers=0,
    max_workers=10,
    poll_s=5,
    cooldown_s=60,
    up=Direction(0, (Policy(4, 30, is_percent=False),)),
    down=Direction(45, (Policy(50, 30, is_percent=True),)),
)


class Desk:
    """An autoscaler, and figures that a test sets."""

    def __init__(self, rule: Rule = RULE) -> None:
        self.clock = FakeClock()
        self.workers = 0
        self.waiting = self.oldest_s = 0.0
        self.reads = 0
        self._autoscaler = Autoscaler(rule, self.clock)

    def figures(self) -> tuple[float, float]:
        self.reads += 1
        return self.waiting, self.oldest_s

    def after(self, seconds: float) -> int:
        """The number of workers after so many seconds, a look each second."""
        for _ in range(round(seconds)):
            self.clock.advance(1)
            self.workers = self._autoscaler.decide(self.workers, self.figures)
        return self.workers


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_without_tasks_there_is_no_worker(desk: Desk) -> None:
    assert desk.after(600) == 0


def test_one_waiting_task_starts_the_first_worker_at_the_next_look(desk: Desk) -> None:
    desk.after(1)
    desk.waiting = 1
    numbers = [desk.after(1) for _ in range(5)]
    assert numbers == [0, 0, 0, 0, 1]


def test_figures_are_read_when_it_is_time_for_a_look(desk: Desk) -> None:
    desk.after(60)
    assert desk.reads == 12


def test_there_is_a_worker_for_each_target(desk: Desk) -> None:
    desk.waiting = 301
    assert desk.after(30) == 4


@pytest.mark.parametrize(("oldest_s", "workers"), [(1, 1), (25, 3)])
def test_the_age_counts_too(desk: Desk, oldest_s: float, workers: int) -> None:
    desk.waiting, desk.oldest_s = 1, oldest_s
    assert desk.after(30) == workers


def test_a_difference_of_a_tenth_is_ignored(desk: Desk) -> None:
    desk.waiting = 200
    assert desk.after(30) == 2
    desk.waiting = 219
    assert desk.after(60) == 2
    desk.waiting = 225
    assert desk.after(60) == 3


def test_a_policy_limits_the_growth(desk: Desk) -> None:
    desk.waiting = 5000
    assert desk.after(16) == 5  # the first one, and 4 in 30 s
    assert desk.after(15) == 5
    assert desk.after(20) == 9


def test_there_is_a_largest_number(desk: Desk) -> None:
    desk.waiting = 5000
    assert desk.after(600) == 10


def test_workers_end_slowly(desk: Desk) -> None:
    desk.waiting = 800
    assert desk.after(90) == 8
    desk.waiting = 1
    assert desk.after(30) == 8  # the highest wish of the last 45 s counts
    assert desk.after(30) == 4
    assert desk.after(30) == 2
    assert desk.after(30) == 1
    assert desk.after(600) == 1


def test_the_last_worker_ends_after_the_cooldown(desk: Desk) -> None:
    desk.waiting = 1
    assert desk.after(30) == 1
    desk.waiting = 0
    assert desk.after(60) == 1
    assert desk.after(6) == 0


def test_a_task_within_the_cooldown_begins_it_anew(desk: Desk) -> None:
    desk.waiting = 1
    desk.after(30)
    desk.waiting = 0
    desk.after(50)
    desk.waiting = 1
    desk.after(5)
    desk.waiting = 0
    assert desk.after(59) == 1
    assert desk.after(10) == 0


def test_a_smallest_number_stays() -> None:
    desk = Desk(replace(RULE, min_workers=2))
    desk.waiting = 1
    assert desk.after(30) == 2
    desk.waiting = 0
    assert desk.after(600) == 2


def test_the_rule_is_that_of_the_manifest() -> None:
    rule = Rule.of(MANIFEST)
    assert (rule.targets, rule.activations) == ((200, 10), (0, 0))
    assert (rule.min_workers, rule.poll_s, rule.cooldown_s, rule.sync_s) == (0, 5, 300, 15)
    assert rule.up == Direction(0, (Policy(4, 30, is_percent=False),))
    assert rule.down == Direction(180, (Policy(50, 60, is_percent=True),))


def test_a_faster_rule_does_the_same_in_less_time() -> None:
    slow, fast = Desk(), Desk(RULE.faster(5))
    for desk in (slow, fast):
        desk.waiting = 800
    numbers = [(slow.after(15), fast.after(3)) for _ in range(8)]
    assert all(one == other for one, other in numbers)
