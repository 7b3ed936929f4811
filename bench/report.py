"""Conversion of rounds to rows, and of rows to a Markdown table and to JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.closed_loop import Load
from bench.rounds import Measurement
from bench.workload import BATCH_SIZES, DECODING, LITERT

Row = dict[str, Any]
NAIVE = "naive"
#: Keys of every row; None if it does not apply or was not measured.
FIGURES = (
    "images_per_s",
    "p50_ms",
    "p99_ms",
    "overhead_ms",
    "cpu_ms_per_image",
    "ratio_to_limit",
    "ratio_to_naive",
)


def row(contender: str, kind: str, model: str, load: str, **figures: Any) -> Row:
    """Create a row.

    Args:
        kind: limit, ours, naive or peer.
        load: in process, closed loop, open loop, queue depth, two workers, checked answers, or failed.
    """
    head = {"contender": contender, "kind": kind, "model": model, "load": load, "clients": None, "images_per_request": 1}
    return head | dict.fromkeys(FIGURES) | figures


def limit_rows(workload: str, rounds: Sequence[dict[str, Any]]) -> list[Row]:
    """Convert the in-process runs to rows of medians, one for each batch size, and one for decoding photos.

    Args:
        rounds: the result of `bench.limit` in each round.
    """
    runs: list[tuple[str, Sequence[Any], tuple[int, ...]]] = [
        ("in process", rounds, BATCH_SIZES),
        ("in process, LiteRT", [limit[LITERT] for limit in rounds], BATCH_SIZES),
    ]
    if all(DECODING in limit for limit in rounds):
        decoding = [{str(BATCH_SIZES[-1]): limit[DECODING]} for limit in rounds]
        runs.append(("in process, decoding and LiteRT", decoding, BATCH_SIZES[-1:]))
    return [
        row(
            f"{name}, batch {size}",
            "limit",
            workload,
            "in process",
            clients=1,
            images_per_request=size,
            ratio_to_limit=statistics.median(
                own[str(size)]["images_per_s"] / limit["32"]["images_per_s"] for own, limit in zip(figures, rounds, strict=True)
            ),
            **_medians([own[str(size)] for own in figures]),
        )
        for name, figures, sizes in runs
        for size in sizes
    ]


def rows(rounds: Sequence[Measurement]) -> list[Row]:
    """Convert the rounds of one contender on one workload to rows of medians, with a spread.

    There is a row for each number of clients, for each share of the highest load in the open loop, and for each failed round.
    """
    numbers = dict.fromkeys(number for one in rounds for number in one.closed)
    shares = dict.fromkeys(share for one in rounds for share in one.opened)
    return [
        *(_closed_row([one for one in rounds if number in one.closed], number) for number in numbers),
        *(_open_row([one for one in rounds if share in one.opened], share) for share in shares),
        *(_row_of(one, "failed", error=one.error) for one in rounds if one.error),
    ]


def _closed_row(rounds: Sequence[Measurement], clients: int) -> Row:
    images = rounds[0].images_per_request
    loads = [one.closed[clients] for one in rounds]
    per_s = [load.requests / load.seconds * images for load in loads]
    own_limits = [one.limit[LITERT] if one.kind == "ours" else one.limit for one in rounds]
    is_alone = clients == images == 1
    own_ratios = [own / limit["32"]["images_per_s"] for own, limit in zip(per_s, own_limits, strict=True)]
    ratios = [own / one.limit["32"]["images_per_s"] for own, one in zip(per_s, rounds, strict=True)]
    cpu_ms = _medians([one.cpu_ms[clients] for one in rounds])
    return _row_of(
        rounds[0],
        "closed loop",
        clients=clients,
        images_per_s=statistics.median(per_s),
        images_per_s_spread=[min(per_s), max(per_s)],
        p50_ms=statistics.median(load.p50_ms for load in loads),
        p99_ms=statistics.median(load.p99_ms for load in loads),
        overhead_ms=_overhead_ms(loads, [one.limit for one in rounds]) if is_alone else None,
        overhead_over_own_runtime_ms=_overhead_ms(loads, own_limits) if is_alone else None,
        cpu_ms_per_image=sum(cpu_ms.values()),
        cpu_ms_by_process=cpu_ms,
        ratio_to_limit=statistics.median(ratios),
        ratio_to_own_runtime=statistics.median(own_ratios),
        ratio_to_decoding=_median(
            own / one.limit[DECODING]["images_per_s"] for own, one in zip(per_s, rounds, strict=True) if DECODING in one.limit
        ),
        mean_batch_size=_median(one.mean_batch_size.get(clients) for one in rounds),
        memory_mb=_medians([one.memory_mb for one in rounds]),
        start_s=_median(one.start_s for one in rounds),
    )


def _overhead_ms(loads: Sequence[Load], limits: Sequence[dict[str, Any]]) -> float:
    """Compute p50 minus that of the model alone in the same round."""
    overheads_ms: list[float] = [load.p50_ms - limit["1"]["p50_ms"] for load, limit in zip(loads, limits, strict=True)]
    return statistics.median(overheads_ms)


def _open_row(rounds: Sequence[Measurement], share: float) -> Row:
    loads = [one.opened[share] for one in rounds]
    return _row_of(
        rounds[0],
        "open loop",
        share_of_highest_load=share,
        images_per_s=statistics.median(load.requests / load.seconds for load in loads) * rounds[0].images_per_request,
        p50_ms=statistics.median(load.p50_ms for load in loads),
        p99_ms=statistics.median(load.p99_ms for load in loads),
        p99_to_p50=statistics.median(load.p99_ms / load.p50_ms for load in loads),
        failed_requests=sum(load.errors for load in loads),
    )


def _row_of(one: Measurement, load: str, **figures: Any) -> Row:
    return row(one.contender, one.kind, one.workload, load, **{"images_per_request": one.images_per_request} | figures)


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Compute the median by key; a round without the key counts as 0."""
    keys = dict.fromkeys(key for one in rounds for key in one)
    return {key: statistics.median(one.get(key, 0.0) for one in rounds) for key in keys}


def compare_with_naive(table: Sequence[Row]) -> None:
    """Set `ratio_to_naive` if `naive` was measured on the same model with as many clients."""

    def place(one: Row) -> tuple[str, int]:
        return one["model"], one["clients"]

    closed = [one for one in table if one["load"] == "closed loop"]
    naive = {place(one): one["images_per_s"] for one in closed if one["kind"] == "naive"}
    for one in closed:
        if place(one) in naive:
            one["ratio_to_naive"] = one["images_per_s"] / naive[place(one)]


_COLUMNS = (
    ("contender", "contender", "{}"),
    ("model", "model", "{}"),
    ("load", "load", "{}"),
    ("clients", "clients", "{}"),
    ("images a request", "images_per_request", "{}"),
    ("images/s", "images_per_s", "{:.0f}"),
    ("p50 ms", "p50_ms", "{:.1f}"),
    ("p99 ms", "p99_ms", "{:.1f}"),
    ("p99 ÷ p50", "p99_to_p50", "{:.1f}"),
    ("overhead ms", "overhead_ms", "{:.1f}"),
    ("over own runtime ms", "overhead_over_own_runtime_ms", "{:.1f}"),
    ("CPU ms an image", "cpu_ms_per_image", "{:.2f}"),
    ("mean batch", "mean_batch_size", "{:.1f}"),
    ("÷ limit", "ratio_to_limit", "{:.2f}"),
    ("÷ own runtime", "ratio_to_own_runtime", "{:.2f}"),
    ("÷ decoding + LiteRT", "ratio_to_decoding", "{:.2f}"),
    ("÷ naive", "ratio_to_naive", "{:.1f}"),
)


def as_markdown(table: Sequence[Row]) -> str:
    """Format the rows as a Markdown table."""

    def cell(one: Row, key: str, shape: str) -> str:
        return "" if one.get(key) is None else shape.format(_load_of(one) if key == "load" else one[key])

    return markdown_table([title for title, _, _ in _COLUMNS], [[cell(one, *column[1:]) for column in _COLUMNS] for one in table])


def processes_as_markdown(table: Sequence[Row]) -> str:
    """Format a table of start time, and memory and CPU by process, for each contender and model."""
    whole = [one for one in table if one.get("memory_mb") and one.get("cpu_ms_by_process")]
    places = {(one["contender"], one["model"]): one for one in whole}  # the last row has the most clients
    lines = [[*place, *_process_cells(one)] for place, one in places.items()]
    return markdown_table(["contender", "model", "start s", "MB of the largest process", "CPU ms an image"], lines)


def _process_cells(one: Row) -> list[str]:
    cpu_ms = _by_process(one["cpu_ms_by_process"], "{:.2f}")
    return [f"{one['start_s']:.1f}", _by_process(one["memory_mb"], "{:.0f}"), f"{cpu_ms} at {one['clients']} clients"]


def _by_process(figures: dict[str, float], shape: str) -> str:
    return ", ".join(f"{role} {shape.format(value)}" for role, value in figures.items())


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ["---"] * len(head), *lines))


def _load_of(one: Row) -> str:
    """Format the load of a row with its parameters."""
    match one:
        case {"share_of_highest_load": share, "failed_requests": failed}:
            return f"open loop, {share:.0%} of the highest" + (f", **{failed} failed**" if failed else "")
        case {"queue_depth": depth}:
            return f"queue depth {depth:,}"
        case {"wrong_answers": wrong, "answers": answers, "failed_requests": failed}:
            return f"{answers} checked answers, {wrong} wrong, {failed} failed"
        case {"error": str(error)}:
            return f"failed: {error.splitlines()[0].strip():.100}".replace("|", "/")
    return str(one["load"])


def write_json(table: Sequence[Row], file: Path) -> None:
    """Write the rows, one per line, with six significant digits."""
    lines = (json.dumps(_round(one)) for one in table)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def read_json(file: Path) -> list[Row]:
    """Read the rows that `write_json` wrote."""
    table: list[Row] = json.loads(file.read_text(encoding="utf-8"))
    return table


def _round(value: Any) -> Any:
    match value:
        case float():
            return float(f"{value:.6g}")
        case dict():
            return {key: _round(one) for key, one in value.items()}
        case list() | tuple():
            return [_round(one) for one in value]
    return value
