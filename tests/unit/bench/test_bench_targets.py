"""The target table is what the rows say, no more."""

from __future__ import annotations

from typing import Any

import pytest

from bench import targets
from bench.report import Row, row


def closed(contender: str, kind: str, model: str, clients: int, **figures: Any) -> Row:
    return row(contender, kind, model, "closed loop", **{"clients": clients, "memory_mb": {}, "start_s": 5.0} | figures)


def ours(contender: str, model: str, clients: int, **figures: Any) -> Row:
    return closed(contender, "ours", model, clients, **figures)


def line(table: list[Row], figure: str) -> dict[str, str]:
    """The line of the target table whose figure starts like that, by column."""
    head, _, *lines = [[cell.strip() for cell in text.strip("|").split("|")] for text in targets.as_markdown(table).splitlines()]
    (found,) = [cells for cells in lines if cells[0].startswith(figure)]
    return dict(zip(head, found, strict=True))


@pytest.mark.parametrize(
    ("ratio", "reached"), [(0.95, "yes, and the aim"), (0.90, "yes, and the aim"), (0.80, "yes"), (0.75, "yes"), (0.74, "**no**")]
)
def test_a_target_is_reached_aimed_at_or_missed(ratio: float, reached: str) -> None:
    found = line([ours("embedded", "mobilenetv2", 64, ratio_to_limit=ratio)], "MobileNetV2, 64 clients")

    assert (found["ours"], found["must reach"], found["aims at"], found["reached"]) == (
        f"{ratio:.2f}",
        "≥ 0.75",
        "≥ 0.90",
        reached,
    )


@pytest.mark.parametrize(("overhead_ms", "reached"), [(2.0, "yes, and the aim"), (3.9, "yes"), (4.1, "**no**")])
def test_where_less_is_better_less_reaches_it(overhead_ms: float, reached: str) -> None:
    found = line([ours("embedded", "mobilenetv2", 1, overhead_ms=overhead_ms)], "MobileNetV2, one client")

    assert (found["must reach"], found["reached"]) == ("≤ 4.0", reached)


def test_what_a_run_lacks_is_not_measured() -> None:
    table = [ours("embedded", "tiny", 64, images_per_s=900.0)]

    assert {cells[-1] for cells in (target.cells(table) for target in targets.TARGETS)} == {"not measured", "yes, and the aim"}
    found = line(table, "tiny, 64 clients, embedded: ÷ LitServe")
    assert (found["ours"], found["best peer"], found["reached"]) == ("not measured", "not measured", "not measured")


def test_other_models_and_numbers_of_clients_do_not_count() -> None:
    table = [
        ours("embedded", "tiny", 64, ratio_to_limit=0.99),
        ours("embedded", "mobilenetv2", 256, ratio_to_limit=0.98),
        ours("embedded", "mobilenetv2", 64, ratio_to_limit=0.5),
    ]

    assert line(table, "MobileNetV2, 64 clients")["ours"] == "0.50"


def test_the_best_peer_of_the_run_is_named_and_naive_is_shown_too() -> None:
    table = [
        ours("embedded", "mobilenetv2", 64, ratio_to_limit=0.8),
        closed("naive", "naive", "mobilenetv2", 64, ratio_to_limit=0.2),
        closed("LitServe", "peer", "mobilenetv2", 64, ratio_to_limit=0.5),
        closed("Mosec", "peer", "mobilenetv2", 64, ratio_to_limit=0.7),
    ]

    found = line(table, "MobileNetV2, 64 clients")
    assert (found["naive"], found["best peer"]) == ("0.20", "0.70 Mosec")


def test_the_best_of_what_should_be_small_is_the_smallest() -> None:
    peers = [closed(name, "peer", "mobilenetv2", 1, overhead_ms=ms) for name, ms in (("LitServe", 11.8), ("Mosec", 5.7))]

    assert line(peers, "MobileNetV2, one client")["best peer"] == "5.7 Mosec"


def test_ratios_to_a_rival_are_taken_in_the_same_run() -> None:
    table = [
        ours("embedded", "tiny", 64, images_per_s=900.0),
        ours("redis-minio-mongodb", "tiny", 64, images_per_s=400.0),
        ours("embedded-batches", "tiny", 8, images_per_s=3000.0, images_per_request=32),
        closed("naive", "naive", "tiny", 64, images_per_s=100.0),
        closed("LitServe", "peer", "tiny", 64, images_per_s=600.0),
        closed("Mosec", "peer", "tiny", 64, images_per_s=5000.0),
        closed("Mosec", "peer", "tiny", 256, images_per_s=6000.0),
    ]

    assert line(table, "tiny, 64 clients, embedded: ÷ LitServe")["ours"] == "1.50"
    assert line(table, "tiny, 64 clients, Redis")["ours"] == "4.00"
    assert line(table, "the same, tiny: images/s ÷ Mosec")["ours"] == "0.50"


def test_the_worst_model_counts_for_tail_memory_and_start() -> None:
    table = [
        ours("embedded", "tiny", 64, memory_mb={"api": 90.0, "worker": 400.0}, start_s=6.0),
        ours("embedded", "photo", 64, memory_mb={"api": 160.0}, start_s=13.0),
        row("embedded", "ours", "tiny", "open loop", share_of_highest_load=0.8, p99_to_p50=2.5),
        row("embedded", "ours", "photo", "open loop", share_of_highest_load=0.8, p99_to_p50=1.5),
        row("embedded", "ours", "photo", "open loop", share_of_highest_load=0.5, p99_to_p50=9.0),
    ]

    reached = {figure: line(table, figure) for figure in ("p99 ÷ p50", "largest API process", "start to first answer")}
    assert {figure: (found["ours"], found["reached"]) for figure, found in reached.items()} == {
        "p99 ÷ p50": ("2.50", "yes"),
        "largest API process": ("160", "**no**"),
        "start to first answer": ("13.0", "**no**"),
    }


def test_depth_is_compared_by_time_and_by_cpu() -> None:
    table = [
        row("embedded", "ours", "tiny", "queue depth", queue_depth=depth, ms_per_image=ms, cpu_ms_per_image=cpu_ms)
        for depth, ms, cpu_ms in ((100, 1.0, 2.0), (1_000, 7.0, 7.0), (100_000, 1.5, 2.0))
    ]

    assert (line(table, "time a task")["ours"], line(table, "time a task")["reached"]) == ("1.50", "**no**")
    assert (line(table, "CPU a task")["ours"], line(table, "CPU a task")["reached"]) == ("1.00", "yes, and the aim")


@pytest.mark.parametrize(("wrong", "reached"), [(0, "yes, and the aim"), (1, "**no**")])
def test_one_wrong_answer_is_one_too_many(wrong: int, reached: str) -> None:
    table = [row("embedded-4-api", "ours", "tiny", "checked answers", answers=1000, wrong_answers=wrong)]

    assert line(table, "4 API processes")["reached"] == reached
