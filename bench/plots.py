"""The rows as pictures, one for each model: throughput, CPU by process, latency under load."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.report import Row

_CPU_CLIENTS = (64, 8)


def draw(table: Sequence[Row], machine: str, folder: Path) -> list[Path]:
    """Write performance-MODEL.png and .svg to the folder; gives the files.

    Args:
        machine: its description, for the caption.
    """
    import matplotlib as mpl  # noqa: PLC0415 only a whole run draws

    mpl.use("Agg")
    # The same rows make the same file: no random ids, no date, and text as text, which is small too.
    mpl.rcParams.update({"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 8})
    from matplotlib import pyplot as plt  # noqa: PLC0415

    files = []
    for model in dict.fromkeys(row["model"] for row in table if row["load"] == "closed loop"):
        rows = [row for row in table if row["model"] == model]
        colours = dict(zip(_contenders(rows), plt.rcParams["axes.prop_cycle"].by_key()["color"] * 2, strict=False))
        figure, axes = plt.subplot_mosaic([["throughput", "cpu"], ["latency", "cpu"]], figsize=(10, 7.5), layout="constrained")
        _throughput(axes["throughput"], rows, colours)
        _latency(axes["latency"], rows, colours)
        _cpu(axes["cpu"], rows)
        figure.suptitle(model)
        figure.supxlabel("\n".join(textwrap.wrap(machine, 130)), fontsize=7, color="gray")
        for suffix, options in (("png", {"dpi": 140}), ("svg", {"metadata": {"Date": None}})):
            files.append(folder / f"performance-{model}.{suffix}")
            figure.savefig(files[-1], **options)
        plt.close(figure)
    return files


def _contenders(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["contender"] for row in rows if row["load"] == "closed loop"))


def _throughput(axes: Any, rows: Sequence[Row], colours: dict[str, str]) -> None:
    for row in rows:
        if row["kind"] == "limit" and row["images_per_request"] in {1, 32}:
            axes.axhline(row["images_per_s"], linestyle=":", color="gray", linewidth=1)
            axes.annotate(row["contender"], (1, row["images_per_s"]), fontsize=7, color="gray", va="bottom")
    for contender, colour in colours.items():
        line = [row for row in rows if row["contender"] == contender and row["load"] == "closed loop"]
        marker = "s" if line[0]["images_per_request"] > 1 else "o"
        axes.plot(
            [row["clients"] for row in line],
            [row["images_per_s"] for row in line],
            marker=marker,
            color=colour,
            label=f"{contender} ({line[0]['images_per_request']} a request)" if marker == "s" else contender,
        )
    _logarithmic(axes)
    axes.set(xlabel="clients", title="images a second")
    clients = sorted({row["clients"] for row in rows if row["load"] == "closed loop"})
    axes.set_xticks(clients, [str(number) for number in clients])
    axes.set_xticks([], minor=True)
    axes.legend(fontsize=7, framealpha=0.5)


def _latency(axes: Any, rows: Sequence[Row], colours: dict[str, str]) -> None:
    """p50 and p99 by arriving images a second, in the open loop."""
    opened = [row for row in rows if row["load"] == "open loop"]
    for contender, colour in colours.items():
        line = [row for row in opened if row["contender"] == contender]
        rates = [row["images_per_s"] for row in line]
        axes.plot(rates, [row["p99_ms"] for row in line], marker="^", color=colour)
        axes.plot(rates, [row["p50_ms"] for row in line], marker="v", linestyle="--", color=colour)
    if opened:  # a logarithmic axis of nothing is an error
        _logarithmic(axes)
    axes.set_xlabel("images that arrive a second (Poisson)")
    axes.set_title("latency under load, ms: p99 ▲, p50 ▼ dashed")


def _logarithmic(axes: Any) -> None:
    from matplotlib.ticker import LogFormatter  # noqa: PLC0415

    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        # 200 and 400, not 2x10^2 and 4x10^2
        axis.set_major_formatter(LogFormatter())
        axis.set_minor_formatter(LogFormatter())


def _cpu(axes: Any, rows: Sequence[Row]) -> None:
    """Stacked bars, a part for each kind of process, at 64 clients or the nearest that there is."""
    import matplotlib as mpl  # noqa: PLC0415

    bars = [row for row in (_cpu_row(rows, name) for name in _contenders(rows)) if row]
    roles = dict.fromkeys(role for row in bars for role in row["cpu_ms_by_process"])
    names = [f"{row['contender']}\n{row['clients']} clients" for row in bars]
    lefts = [0.0] * len(bars)
    colours = mpl.colormaps["tab20"](range(20))  # more roles than the usual ten colours
    for role, colour in zip(roles, colours, strict=False):
        widths = [row["cpu_ms_by_process"].get(role, 0.0) for row in bars]
        axes.barh(names, widths, left=lefts, label=role, color=colour)
        lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_title("CPU milliseconds an image, by process")
    axes.legend(fontsize=7, framealpha=0.5)


def _cpu_row(rows: Sequence[Row], contender: str) -> Row | None:
    closed = {row["clients"]: row for row in rows if row["contender"] == contender and row["load"] == "closed loop"}
    return next((closed[clients] for clients in _CPU_CLIENTS if clients in closed), None)
