"""Rounds become rows, rows become a table, JSON and plots."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.measuring import Measurement

Row = dict[str, Any]
NAIVE = "naive"


def limit_rows(workload: str, limit: dict[str, Any]) -> list[Row]:
    """The in-process runs as rows, one for each batch size."""
    best = limit["32"]["images_per_s"]
    return [
        {
            "contender": f"in process, batch {size}",
            "model": workload,
            "clients": 1,
            "images_per_request": int(size),
            "images_per_s": limit[size]["images_per_s"],
            "p50_ms": limit[size]["p50_ms"],
            "p99_ms": limit[size]["p99_ms"],
            "overhead_ms": 0.0,
            "cpu_ms_per_image": None,
            "ratio_to_limit": limit[size]["images_per_s"] / best,
            "ratio_to_naive": None,
        }
        for size in ("1", "8", "32")
    ]


def rows(rounds: Sequence[Measurement], limit: dict[str, Any], images_per_request: int) -> list[Row]:
    """The rounds of one contender on one workload as rows, one for each number of clients: medians, and a spread."""
    found = []
    for clients in rounds[0].closed:
        loads = [measurement.closed[clients] for measurement in rounds]
        per_s = [load.requests / load.seconds * images_per_request for load in loads]
        p50_ms = statistics.median(load.p50_ms for load in loads)
        cpu_ms = statistics.median(sum(measurement.cpu_ms_per_image.values()) for measurement in rounds)
        found.append(
            {
                "contender": rounds[0].contender,
                "model": rounds[0].workload,
                "clients": clients,
                "images_per_request": images_per_request,
                "images_per_s": statistics.median(per_s),
                "images_per_s_spread": [min(per_s), max(per_s)],
                "p50_ms": p50_ms,
                "p99_ms": statistics.median(load.p99_ms for load in loads),
                "overhead_ms": p50_ms - limit["1"]["p50_ms"] if clients == images_per_request == 1 else None,
                "cpu_ms_per_image": cpu_ms / images_per_request,
                "ratio_to_limit": statistics.median(per_s) / limit["32"]["images_per_s"],
                "ratio_to_naive": None,
            }
        )
    return found


def compare_with_naive(table: list[Row]) -> None:
    """Fill in `ratio_to_naive` where the naive way was measured on the same model with as many clients."""
    naive = {(row["model"], row["clients"]): row["images_per_s"] for row in table if row["contender"] == NAIVE}
    for row in table:
        other = naive.get((row["model"], row["clients"]))
        if other and not row["contender"].startswith("in process"):
            row["ratio_to_naive"] = row["images_per_s"] / other


def tail_ratios(rounds: Sequence[Measurement]) -> dict[float, float]:
    """p99 ÷ p50 by share of the highest load, open loop."""
    return {
        share: statistics.median(measurement.opened[share].p99_ms / measurement.opened[share].p50_ms for measurement in rounds)
        for share in rounds[0].opened
    }


def as_markdown(table: Sequence[Row]) -> str:
    """The rows as a table for a person."""
    columns = [
        ("contender", "contender", "{}"),
        ("model", "model", "{}"),
        ("clients", "clients", "{}"),
        ("images a request", "images_per_request", "{}"),
        ("images/s", "images_per_s", "{:.0f}"),
        ("p50 ms", "p50_ms", "{:.1f}"),
        ("p99 ms", "p99_ms", "{:.1f}"),
        ("overhead ms", "overhead_ms", "{:.1f}"),
        ("CPU ms an image", "cpu_ms_per_image", "{:.1f}"),
        ("÷ limit", "ratio_to_limit", "{:.2f}"),
        ("÷ naive", "ratio_to_naive", "{:.1f}"),
    ]
    lines = [" | ".join(title for title, _, _ in columns), " | ".join("---" for _ in columns)]
    lines += [" | ".join("" if row[key] is None else shape.format(row[key]) for _, key, shape in columns) for row in table]
    return "".join(f"| {line} |\n" for line in lines)


def write_json(table: Sequence[Row], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(list(table), indent=1) + "\n", encoding="utf-8")


def plot(table: Sequence[Row], folder: Path) -> list[Path]:
    """Throughput by clients, a line for each contender, a picture (PNG and SVG) for each model."""
    import matplotlib as mpl  # noqa: PLC0415 only a whole run draws

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    files = []
    for model in dict.fromkeys(row["model"] for row in table):
        figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
        own = [row for row in table if row["model"] == model]
        for contender in dict.fromkeys(row["contender"] for row in own):
            line = [row for row in own if row["contender"] == contender]
            if contender.startswith("in process"):
                axes.axhline(line[0]["images_per_s"], linestyle=":", color="gray", linewidth=1)
                axes.annotate(contender, (1, line[0]["images_per_s"]), fontsize=8, color="gray", va="bottom")
            else:
                style = "s" if line[0]["images_per_request"] > 1 else "o"
                axes.plot([row["clients"] for row in line], [row["images_per_s"] for row in line], marker=style, label=contender)
        axes.set(xscale="log", yscale="log", xlabel="clients", ylabel="images a second", title=model)
        axes.set_xticks([1, 8, 64, 256], ["1", "8", "64", "256"])
        axes.legend(fontsize=8)
        for suffix in ("png", "svg"):
            files.append(folder / f"performance-{model}.{suffix}")
            figure.savefig(files[-1], dpi=140)
        plt.close(figure)
    return files
