"""Rounds become rows, rows become the page."""

from __future__ import annotations

from typing import Any

import pytest

from bench import page, report
from bench.closed_loop import Load
from bench.rounds import Measurement, Plan, mean_batch_size

LIMIT: dict[str, Any] = {
    size: {"images_per_s": per_s, "p50_ms": 2.0, "p99_ms": 3.0} for size, per_s in (("1", 400.0), ("8", 900.0), ("32", 1000.0))
}
#: LiteRT takes a quarter of the time.
LIMIT["litert"] = {
    size: {"images_per_s": 4 * LIMIT[size]["images_per_s"], "p50_ms": 0.5, "p99_ms": 1.0} for size in ("1", "8", "32")
}
#: Members that each row of build/bench.json has.
KEYS = {
    "contender",
    "model",
    "clients",
    "images_per_request",
    "images_per_s",
    "p50_ms",
    "p99_ms",
    "overhead_ms",
    "cpu_ms_per_image",
    "ratio_to_limit",
    "ratio_to_naive",
}


@pytest.mark.parametrize(("wanted_s", "lasts_s"), [(0.1, 5.0), (7.0, 7.0), (60.0, 10.0)])
def test_a_load_lasts_as_long_as_it_needs_within_bounds(wanted_s: float, lasts_s: float) -> None:
    assert Plan(seconds=5.0, longest_s=10.0).lasting(wanted_s) == lasts_s


def load(requests: int, *, p50_ms: float = 5.0, p99_ms: float = 20.0) -> Load:
    return Load(requests, seconds=10.0, p50_ms=p50_ms, p99_ms=p99_ms, errors=0)


def measured(contender: str = "embedded", *, kind: str = "ours", images: int = 1, **figures: Any) -> Measurement:
    return Measurement(contender, kind, "tiny", images, LIMIT, **{"start_s": 5.0, "memory_mb": {"api": 90.0}} | figures)


def rounds_of(*requests: int, **figures: Any) -> list[Measurement]:
    return [measured(closed={64: load(number)}, cpu_ms={64: {"api": 1.0, "worker": 2.0}}, **figures) for number in requests]


def test_every_row_has_the_figures_that_the_json_promises() -> None:
    table = [*report.limit_rows("tiny", [LIMIT]), *report.rows(rounds_of(100, opened={0.8: load(80)}))]
    table += report.rows([measured(error="it died")])

    assert [one["load"] for one in table] == ["in process"] * 6 + ["closed loop", "open loop", "failed"]
    assert [KEYS - one.keys() for one in table] == [set()] * 9


def test_a_row_is_the_median_of_its_rounds_and_says_how_they_spread() -> None:
    (row,) = report.rows(rounds_of(1000, 4000, 2000))

    assert (row["images_per_s"], row["images_per_s_spread"], row["ratio_to_limit"]) == (200.0, [100.0, 400.0], 0.2)
    assert (row["cpu_ms_per_image"], row["cpu_ms_by_process"]) == (3.0, {"api": 1.0, "worker": 2.0})
    assert (row["memory_mb"], row["start_s"]) == ({"api": 90.0}, 5.0)


def test_a_round_is_compared_with_the_model_in_process_in_the_same_round() -> None:
    rounds = rounds_of(1000, 2000, 4000)
    for one, per_s in zip(rounds, (100.0, 1000.0, 800.0), strict=True):
        one.limit = LIMIT | {"32": LIMIT["32"] | {"images_per_s": per_s}}

    (row,) = report.rows(rounds)
    assert row["ratio_to_limit"] == 0.5  # of 1, 0.2 and 0.5; not 200 ÷ 800


def test_images_count_not_requests() -> None:
    (row,) = report.rows(rounds_of(100, images=32))

    assert (row["images_per_request"], row["images_per_s"]) == (32, 320.0)


@pytest.mark.parametrize(("kind", "own_ms", "ratio"), [("ours", 5.0, 0.1), ("peer", 3.5, 0.4), ("naive", 3.5, 0.4)])
def test_each_is_compared_with_the_limit_and_with_the_runtime_that_it_uses(kind: str, own_ms: float, ratio: float) -> None:
    one = measured(kind=kind, closed={1: load(100, p50_ms=5.5), 64: load(4000)}, cpu_ms={1: {}, 64: {}})

    alone, many = report.rows([one])
    assert [row["overhead_ms"] for row in (alone, many)] == [3.5, None]
    assert [row["overhead_over_own_runtime_ms"] for row in (alone, many)] == [own_ms, None]
    assert (many["ratio_to_limit"], many["ratio_to_own_runtime"]) == (0.4, ratio)


def test_the_runs_in_process_are_of_both_runtimes() -> None:
    rows = report.limit_rows("tiny", [LIMIT])
    assert [(row["contender"], row["ratio_to_limit"]) for row in rows[2::3]] == [
        ("in process, batch 32", 1.0),
        ("in process, LiteRT, batch 32", 4.0),
    ]


def test_photos_are_compared_with_decoding_and_litert_in_process_in_the_same_round() -> None:
    rounds = rounds_of(1000, 2000, 4000)
    for one, per_s in zip(rounds, (200.0, 1000.0, 800.0), strict=True):
        one.limit = LIMIT | {"decoding": {"images_per_s": per_s, "p50_ms": 40.0, "p99_ms": 50.0}}

    (row,) = report.rows(rounds)
    limits = report.limit_rows("photo", [one.limit for one in rounds])

    assert row["ratio_to_decoding"] == 0.5  # of 0.5, 0.2 and 0.5
    assert (limits[-1]["contender"], limits[-1]["images_per_s"]) == ("in process, decoding and LiteRT, batch 32", 800.0)


def test_a_raw_array_is_not_compared_with_decoding() -> None:
    (row,) = report.rows(rounds_of(1000))

    assert row["ratio_to_decoding"] is None
    assert "decoding" not in report.limit_rows("tiny", [LIMIT])[-1]["contender"]


def test_the_open_loop_has_rows_of_its_own() -> None:
    rounds = rounds_of(100, 100, 100)
    for one, p99_ms in zip(rounds, (10.0, 60.0, 15.0), strict=True):
        one.opened = {0.8: load(80, p50_ms=5.0, p99_ms=p99_ms)}

    row = report.rows(rounds)[-1]
    assert (row["share_of_highest_load"], row["p99_ms"], row["p99_to_p50"]) == (0.8, 15.0, 3.0)


def test_a_failure_leaves_the_rows_of_what_was_measured_before_it() -> None:
    rounds = [*rounds_of(100), measured(closed={8: load(50)}, cpu_ms={8: {}}, error="2 of 9 requests failed with 64 clients")]

    found = report.rows(rounds)

    assert [(row["load"], row["clients"]) for row in found] == [("closed loop", 64), ("closed loop", 8), ("failed", None)]
    assert found[-1]["error"] == "2 of 9 requests failed with 64 clients"


def test_naive_is_compared_on_the_same_model_with_as_many_clients() -> None:
    naive = measured("naive", kind="naive", closed={64: load(100)}, cpu_ms={64: {}})
    mine = measured(closed={1: load(10), 64: load(400)}, cpu_ms={1: {}, 64: {}})
    table = [*report.limit_rows("tiny", [LIMIT]), *report.rows([mine]), *report.rows([naive])]

    report.compare_with_naive(table)

    assert [row["ratio_to_naive"] for row in table] == [*[None] * 7, 4.0, 1.0]


@pytest.mark.parametrize(("seen", "mean"), [([], None), ([8, 8], 8.0), ([32] * 32 + [1], 16.5)])
def test_a_big_batch_is_met_more_often_than_a_small_one(seen: list[int], mean: float | None) -> None:
    """One batch of 32 and one of 1: 33 requests, a mean of 16.5."""
    assert mean_batch_size(seen) == mean


def test_the_page_says_what_failed() -> None:
    table = report.rows([measured(error="it does not answer | at all\nits log: ...")])

    assert "**Failed**: embedded with tiny: it does not answer | at all\n" in page.summary(table, "a machine")
    assert "| embedded | tiny | failed: it does not answer / at all |" in page.full_tables(table, "a machine")


def test_requests_that_failed_in_the_open_loop_are_seen() -> None:
    rounds = rounds_of(100, opened={0.8: Load(80, 10.0, 5.0, 20.0, errors=3)})

    assert "open loop, 80% of the highest, **3 failed**" in report.as_markdown(report.rows(rounds))
