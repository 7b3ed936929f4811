"""Three plots of a run, each with a panel for each model: throughput, latency under load, and CPU time per image.

This service is blue and everything else grey; each line and bar has its name next to it, so that no plot needs a legend. The
titles are computed from the rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import plot_layout
from bench.peer_contenders import PEERS
from bench.plot_layout import BLUE, GREY, INK, PALE_BLUE, Label
from bench.report import NAIVE, Row

#: In the order of the panels: from the most expensive model to the cheapest.
_MODELS = {"mobilenetv2": "MobileNetV2", "photo": "photo", "tiny": "tiny"}
_SERVICE = "embedded"
_OURS = {_SERVICE: "this service", "redis-minio-mongodb": "on servers", "embedded-batches": "in batches"}
_NAMES = _OURS | {NAIVE: "naive"} | {peer.name: peer.title for peer in PEERS}
_DASHES: dict[str, Any] = {"redis-minio-mongodb": (0, (4, 1.5)), "embedded-batches": (0, (1, 1))}
_USUAL_CLIENTS = 64
_BUSY_SHARE = 0.8
_ALL_DIGITS_FROM = 10


def draw(table: Sequence[Row], folder: Path) -> list[Path]:
    """Write performance-throughput.svg, -latency.svg and -cpu.svg to the folder, the same files for the same rows.

    Redis with Kafka is left out: its figures are close to those of Redis with MongoDB.
    """
    rows = [row for row in table if row["model"] in _MODELS and (row["contender"] in _NAMES or row["kind"] == "limit")]
    files = []
    with plot_layout.settings():
        for name, picture in (("throughput", _throughput), ("latency", _latency), ("cpu", _cpu)):
            files.append(folder / f"performance-{name}.svg")
            picture(rows).savefig(files[-1], metadata={"Date": None})
    return files


def _throughput(rows: Sequence[Row]) -> Any:
    """Draw images per second by images in flight."""
    closed = [row for row in rows if row["load"] == "closed loop"]
    about = "by images in flight (clients times images in a request), more is better; dotted: the model alone in TensorFlow"
    figure, panels = plot_layout.line_panels("Images per second (ratios: with 64 clients)", about, _models(closed))
    for model, axes in panels.items():
        usual = [row for row in closed if row["model"] == model and row["clients"] == _USUAL_CLIENTS]
        plot_layout.title(axes, *_finding(model, usual, "images_per_s", "{}/s", max(_peers(usual), key=_rate, default=None)))
        _throughput_lines(axes, [row for row in rows if row["model"] == model])
    return figure


def _throughput_lines(axes: Any, rows: Sequence[Row]) -> None:
    closed = [row for row in rows if row["load"] == "closed loop"]
    labels = []
    for name in dict.fromkeys(row["contender"] for row in closed):
        line = [row for row in closed if row["contender"] == name]
        in_flight = [row["clients"] * row["images_per_request"] for row in line]
        width, layer = (2.2, 3) if name in _OURS else (1.2, 2)
        style = {"color": _colour(name), "zorder": layer, "clip_on": False}
        axes.plot(in_flight, list(map(_rate, line)), linestyle=_DASHES.get(name, "-"), linewidth=width, **style)
        axes.plot(in_flight, list(map(_rate, line)), "o", markersize=2 * width, **style)
        labels.append(_label(name, _rate(line[-1])))
    for row in rows:
        if row["contender"] == "in process, batch 32":
            axes.axhline(_rate(row), linestyle=(0, (1, 3)), color=INK, linewidth=1)
            labels.append(Label(_rate(row), "model alone", INK))
    plot_layout.logarithmic(axes, "x", ticks=sorted({row["clients"] for row in closed}))
    plot_layout.logarithmic(axes, "y")
    plot_layout.name_line_ends(axes, labels)


def _latency(rows: Sequence[Row]) -> Any:
    """Draw p50 and p99 of each contender at 80 % of its own highest rate."""
    busy = [row for row in rows if row.get("share_of_highest_load") == _BUSY_SHARE]
    places = _places(busy, "p99_ms")
    about = "ms from p50 (ring) to p99 (dot) of random arrivals, less is better; best peer: the one with the highest rate"
    figure, panels = plot_layout.row_panels("Latency at 80 % of each one's highest rate", about, _models(busy), _labels(places))
    for model, axes in panels.items():
        own = [row for row in busy if row["model"] == model]
        plot_layout.title(axes, *_finding(model, own, "p99_ms", "p99 {} ms", max(_peers(own), key=_rate, default=None)))
        for row in own:
            place, colour = places[row["contender"]], _colour(row["contender"])
            axes.plot([row["p50_ms"], row["p99_ms"]], [place, place], color=colour, linewidth=2)
            axes.plot(row["p50_ms"], place, "o", color=colour, markerfacecolor="white", markersize=6)
            axes.plot(row["p99_ms"], place, "o", color=colour, markersize=6)
        plot_layout.logarithmic(axes, "x", steps=(1, 3))
        ends = [(row["p99_ms"], places[row["contender"]]) for row in own]
        plot_layout.write_at_row_ends(axes, ends, [f"{_short(row['p99_ms'])} ms at {_short(_rate(row))}/s" for row in own])
    return figure


def _cpu(rows: Sequence[Row]) -> Any:
    """Draw CPU milliseconds per image; ours are split into the model's part and the rest."""
    closed = [row for row in rows if row.get("cpu_ms_by_process")]
    usual = [row for row in closed if row["clients"] == (8 if row["images_per_request"] > 1 else _USUAL_CLIENTS)]
    places = _places(usual, "cpu_ms_per_image")
    about = "ms in all processes with 64 clients (in batches: 8), less is better; dark blue: the model, pale blue: the rest"
    figure, panels = plot_layout.row_panels("CPU time per image", about, _models(usual), _labels(places))
    for model, axes in panels.items():
        own = [row for row in usual if row["model"] == model]
        plot_layout.title(axes, *_finding(model, own, "cpu_ms_per_image", "{} ms", min(_peers(own), key=_cpu_ms, default=None)))
        for row in own:
            place = places[row["contender"]]
            axes.barh(place, _cpu_ms(row), height=0.7, color=PALE_BLUE if row["contender"] in _OURS else GREY)
            axes.barh(place, row["cpu_ms_by_process"].get("predictor", 0.0), height=0.7, color=BLUE)
        axes.set_xticks([])
        ends = [(_cpu_ms(row), places[row["contender"]]) for row in own]
        plot_layout.write_at_row_ends(axes, ends, [_short(cpu_ms) for cpu_ms, _ in ends])
    return figure


def _finding(model: str, rows: Sequence[Row], key: str, shape: str, peer: Row | None) -> tuple[str, str]:
    """Create a panel's title and its figures, such as "tiny: 0.12x the best peer" and "840/s, Mosec 7,301/s"."""
    ours = next((row for row in rows if row["contender"] == _SERVICE), None)
    if ours is None or peer is None:
        return _MODELS[model], ""
    figures = f"{shape.format(_short(ours[key]))}, {_NAMES[peer['contender']]} {shape.format(_short(peer[key]))}"
    return f"{_MODELS[model]}: {_short(ours[key] / peer[key])}x the best peer", figures


def _peers(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["kind"] == "peer"]


def _rate(row: Row) -> float:
    return float(row["images_per_s"])


def _cpu_ms(row: Row) -> float:
    return float(row["cpu_ms_per_image"])


def _places(rows: Sequence[Row], key: str) -> dict[str, float]:
    """Compute the heights of a plot's rows by contender: ours on top, the others below, small figures first."""
    names = dict.fromkeys(row["contender"] for row in rows)
    products = {name: math.prod(row[key] for row in rows if row["contender"] == name) for name in names}
    ours = [name for name in _OURS if name in names]
    others = sorted((name for name in names if name not in _OURS), key=lambda name: products[name])
    return {name: -place for place, name in enumerate(ours)} | {
        name: -len(ours) - place - 0.5 for place, name in enumerate(others)
    }


def _models(rows: Sequence[Row]) -> list[str]:
    return [model for model in _MODELS if any(row["model"] == model for row in rows)]


def _colour(contender: str) -> str:
    return BLUE if contender in _OURS else GREY


def _label(contender: str, at: float) -> Label:
    return Label(at, _NAMES[contender], BLUE if contender in _OURS else INK)


def _labels(places: dict[str, float]) -> list[Label]:
    return [_label(name, at) for name, at in places.items()]


def _short(value: float) -> str:
    """Format with two significant digits, or with all digits before the decimal point."""
    return f"{float(f'{value:.2g}'):g}" if value < _ALL_DIGITS_FROM else f"{value:,.0f}"
