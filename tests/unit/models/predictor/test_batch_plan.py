"""Sizes that a batch is run in: the cheapest by measurement, and one padded batch unless several are clearly cheaper."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from inference.models.predictor.batch_plan import measure_costs, plan_batches

SIZES = (1, 2, 4, 8, 16, 32)
#: as measured: a network whose activations fall out of the cache, and one whose calls cost more than its images
MOBILENETV2_MS = {1: 30.0, 2: 46.0, 4: 75.0, 8: 145.0, 16: 330.0, 32: 744.0}
TINY_MS = {1: 0.8, 2: 0.9, 4: 1.15, 8: 1.6, 16: 2.4, 32: 3.9}


@pytest.mark.parametrize(
    ("cost_ms", "count", "plan"),
    [
        (MOBILENETV2_MS, 32, (8, 8, 8, 8)),
        (MOBILENETV2_MS, 20, (8, 8, 4)),
        (MOBILENETV2_MS, 8, (8,)),
        (MOBILENETV2_MS, 1, (1,)),
        (TINY_MS, 32, (32,)),
        (TINY_MS, 17, (16, 1)),
        (TINY_MS, 20, (32,)),
        (TINY_MS, 3, (4,)),
        ({1: 7.0}, 1, (1,)),
    ],
)
def test_a_batch_runs_in_the_sizes_that_are_cheapest(cost_ms: dict[int, float], count: int, plan: tuple[int, ...]) -> None:
    assert plan_batches(cost_ms, max(cost_ms))[count] == plan


def test_a_gain_that_may_be_noise_splits_nothing() -> None:
    flat = {size: 10.0 * size for size in SIZES}
    assert plan_batches(flat | {32: 350.0}, 32)[32] == (32,)
    assert plan_batches(flat | {32: 360.0}, 32)[32] != (32,)


def test_a_larger_size_that_is_cheaper_is_padded_to() -> None:
    assert plan_batches({1: 5.0, 4: 90.0, 8: 20.0}, 8)[6] == (8,)


def test_images_beyond_the_largest_measured_size_run_in_chunks() -> None:
    plans = plan_batches({1: 10.0, 2: 15.0, 4: 25.0, 8: 40.0}, 32)
    assert (plans[32], plans[13], plans[3]) == ((8, 8, 8, 8), (8, 8), (4,))


def test_every_plan_holds_its_images_and_no_size_too_many() -> None:
    chance = random.Random(4)  # noqa: S311 no secret
    for _ in range(50):
        sizes = sorted({1, *chance.sample(range(2, 65), 5)})
        plans = plan_batches({size: chance.uniform(1, 50) for size in sizes}, sizes[-1])
        assert list(plans) == list(range(1, sizes[-1] + 1))
        for count, plan in plans.items():
            assert set(plan) <= set(sizes)
            assert sum(plan) - plan[-1] < count <= sum(plan)
            assert list(plan) == sorted(plan, reverse=True)


class Machine:
    """Runs batches on a clock of its own."""

    def __init__(self, seconds: Iterator[float]) -> None:
        self._seconds = seconds
        self._now = 100.0
        self.ran: list[int] = []

    def clock(self) -> float:
        return self._now

    def run(self, size: int) -> None:
        self.ran.append(size)
        self._now += next(self._seconds)


def test_the_cost_is_the_least_of_interleaved_rounds() -> None:
    machine = Machine(iter([0.002, 0.004, 0.009, 0.005, 0.001, 0.004, 0.003, 0.005, 0.002, 0.006]))
    cost_ms = measure_costs(machine.run, (1, 4), machine.clock)
    assert machine.ran == [1, 4] * 5
    assert cost_ms == pytest.approx({1: 1.0, 4: 4.0})


def test_a_slow_model_is_timed_for_no_longer_than_half_a_second_and_a_round() -> None:
    machine = Machine(iter([0.1, 0.2] * 5))
    assert measure_costs(machine.run, (1, 4), machine.clock) == pytest.approx({1: 100.0, 4: 200.0})
    assert machine.ran == [1, 4] * 2
