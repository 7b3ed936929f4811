"""Rates of two workers together, compared with each alone."""

from __future__ import annotations

import pytest

from bench.closed_loop import Load
from bench.scaling import Round, two_worker_rows


def load(per_s: int) -> Load:
    return Load(per_s * 10, seconds=10.0, p50_ms=5.0, p99_ms=9.0, errors=0)


def test_shares_and_cpu_are_compared_with_each_model_alone() -> None:
    found = Round((load(1000), load(100)), (load(600), load(30)), cpu_ms_alone=(2.0, 20.0), cpu_ms_together=3.0)

    assert found.shares == [0.6, 0.3]
    # 630 requests at 3 ms, where 600 at 2 ms and 30 at 20 ms were to be expected
    assert found.cpu_ratio == pytest.approx(630 * 3.0 / (600 * 2.0 + 30 * 20.0))


def test_each_model_has_rows_alone_and_together_and_both_have_a_sum() -> None:
    rounds = [
        Round((load(1000), load(100)), (load(both), load(50)), cpu_ms_alone=(2.0, 20.0), cpu_ms_together=3.0)
        for both in (400, 900, 500)
    ]

    rows = two_worker_rows(["tiny", "mobilenetv2"], rounds)

    assert [(row["model"], row["load"], row["images_per_s"]) for row in rows] == [
        ("tiny", "two workers, one at work", 1000.0),
        ("tiny", "two workers, both at work", 500.0),
        ("mobilenetv2", "two workers, one at work", 100.0),
        ("mobilenetv2", "two workers, both at work", 50.0),
        ("tiny + mobilenetv2", "two workers, both at work", 550.0),
    ]
    assert rows[-1]["sum_of_shares"] == 1.0
