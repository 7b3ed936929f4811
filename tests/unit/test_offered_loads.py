"""Figures of the overload table, from a load's answers."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from faults.offered import Figures, figures_of, possible_per_s

from bench.offered_load import Offered, Sent


def answered(at_s: list[float], status: int = 200, latency_s: float = 0.1) -> list[Sent]:
    return [Sent(due_s=at - latency_s, latency_s=latency_s, status=status) for at in at_s]


def load_of(requests: list[Sent], bounds_s: list[float]) -> Figures:
    return figures_of(asdict(Offered(requests, cpu_s=1, took_s=10)), rate_per_s=1, bounds_s=bounds_s, deadline_s=1)


def test_goodput_counts_what_met_its_deadline_while_the_load_lasted() -> None:
    in_time = answered([1.0, 2.5, 3, 4, 9, 11])
    others = answered([5], status=504) + answered([6], status=429) + answered([7], latency_s=1.5)
    found = load_of(in_time + others, [2, 10])
    assert (found.offered, found.accepted, found.met, found.expired) == (9, 8, 6, 1)
    assert found.goodput_per_s == pytest.approx(4 / 8)


def test_what_could_be_done_is_that_of_references_in_the_same_phases() -> None:
    """A change takes 6 of 8 seconds of the load, and 2 of 8 of the reference, which does 2 a second meanwhile instead of 5."""
    reference = load_of(
        answered([3, 3.2, 3.4, 3.6] + [5 + 0.2 * step for step in range(25)] + [2.1, 2.3, 2.5, 2.7, 2.9]), [2, 3, 5, 10]
    )
    found = load_of(answered([4]), [2, 3, 9, 10])
    assert [part.goodput_per_s for part in reference.phases] == pytest.approx([5, 2, 5])
    assert possible_per_s(found, [reference]) == pytest.approx((1 * 5 + 6 * 2 + 1 * 5) / 8)
