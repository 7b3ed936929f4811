"""Layout of the plots: panels, their titles, axes with plain numbers, and names that do not overlap.

All measures are in pixels of a plot 800 pixels wide. Positions are computed from them, never from the width of a text, which
differs between fonts.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

BLUE, PALE_BLUE, GREY, INK = "#0b5cad", "#93c0ec", "#aab0b7", "#3c4148"
_PALE = "#e3e6e9"
#: Hides the grid lines behind a text.
_BLANK = {"facecolor": "white", "edgecolor": "none", "pad": 1}
_VARIANTS = "this service: embedded; on servers: with Redis, MinIO and MongoDB; in batches: 32 images in a request"
_WIDTH = 800
_MARGIN = 14
_TEXT, _SMALL = 11, 10
_NAME_WIDTH, _NAME_HEIGHT = 88, 14
_TICKS_WIDTH = 46
#: Distance from the end of a line to its name.
_LEADER_WIDTH = 18
_LINES_HEIGHT = 300
_ROW_HEIGHT = 22
#: Width of a letter of a small text.
_LETTER_WIDTH = 6.2
#: Height above the panels: the plot's title, a line about it, and the panels' titles.
_HEAD_HEIGHT = 104
_FOOT_HEIGHT = 44


@dataclass(frozen=True)
class Label:
    """A name, and its value on the y axis."""

    at: float
    text: str
    colour: str

    @property
    def font(self) -> dict[str, Any]:
        return {"color": self.colour, "fontsize": _TEXT, "weight": "bold" if self.colour == BLUE else "normal"}


def settings() -> Any:
    """Create a context in which matplotlib writes text as text, and the same file for the same plot."""
    import matplotlib as mpl  # noqa: PLC0415 only a full run needs it

    return mpl.rc_context({"svg.hashsalt": "bench", "svg.fonttype": "none", "text.color": INK, "font.size": _TEXT})


def line_panels(title: str, about: str, names: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """Create a figure with a panel for each name, with space for the names at the ends of the lines."""
    figure, height = _figure(title, about, _LINES_HEIGHT)
    step = _WIDTH / max(1, len(names))
    boxes = {name: (step * at + _TICKS_WIDTH, step - _TICKS_WIDTH - _NAME_WIDTH - _LEADER_WIDTH) for at, name in enumerate(names)}
    return figure, {name: _panel(figure, height, left, width, _LINES_HEIGHT) for name, (left, width) in boxes.items()}


def row_panels(title: str, about: str, names: Sequence[str], labels: Sequence[Label]) -> tuple[Any, dict[str, Any]]:
    """Create a figure with a panel for each name; the labels are left of the first panel and apply to all."""
    lowest = min((label.at for label in labels), default=0.0)
    panel_height = _ROW_HEIGHT * (1 - lowest)
    figure, height = _figure(title, about, panel_height)
    first = _MARGIN + _NAME_WIDTH
    step = (_WIDTH - first) / max(1, len(names))
    panels = {name: _panel(figure, height, first + step * at, step - _MARGIN, panel_height) for at, name in enumerate(names)}
    for axes in panels.values():
        axes.set_ylim(lowest - 0.5, 0.5)
        axes.set_yticks([])
    for label in labels:
        at = (_FOOT_HEIGHT + _ROW_HEIGHT * (label.at - lowest + 0.5)) / height
        figure.text((first - 10) / _WIDTH, at, label.text, ha="right", va="center", **label.font)
    return figure, panels


def _figure(title: str, about: str, panel_height: float) -> tuple[Any, float]:
    from matplotlib.figure import Figure  # noqa: PLC0415

    height = _HEAD_HEIGHT + panel_height + _FOOT_HEIGHT
    figure = Figure(figsize=(_WIDTH / 72, height / 72))
    figure.text(_MARGIN / _WIDTH, 1 - 24 / height, title, fontsize=14, weight="bold", va="baseline")
    figure.text(_MARGIN / _WIDTH, 1 - 44 / height, about, fontsize=_SMALL, va="baseline")
    figure.text(_MARGIN / _WIDTH, 10 / height, _VARIANTS, fontsize=_SMALL, va="baseline", color=BLUE)
    return figure, height


def _panel(figure: Any, height: float, left: float, width: float, panel_height: float) -> Any:
    axes = figure.add_axes((left / _WIDTH, _FOOT_HEIGHT / height, width / _WIDTH, panel_height / height))
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_PALE)
    axes.tick_params(length=0, labelsize=_SMALL, labelcolor=INK)
    axes.set_axisbelow(True)
    return axes


def title(axes: Any, title: str, figures: str) -> None:
    """Write the panel's title and a line below it."""
    for text, above, weight in ((title, 26, "bold"), (figures, 11, "normal")):
        axes.annotate(text, (0, 1), (0, above), xycoords="axes fraction", textcoords="offset points", weight=weight)


def logarithmic(axes: Any, which: str, *, ticks: Sequence[float] = (), steps: Sequence[int] = (1, 2, 5)) -> None:
    """Make the x or y axis logarithmic, labelled 200 and 400 rather than 2x10^2 and 4x10^2."""
    from matplotlib import ticker  # noqa: PLC0415

    axes.set(**{f"{which}scale": "log"})
    axis = getattr(axes, f"{which}axis")
    low, high = axis.get_view_interval()
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    regular = [step * 10.0**decade for decade in decades for step in steps]
    axis.set_major_locator(ticker.FixedLocator(ticks or [tick for tick in regular if low <= tick <= high]))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_locator(ticker.NullLocator())
    axis.grid(color=_PALE, linewidth=0.8)


def name_line_ends(axes: Any, labels: Sequence[Label]) -> None:
    """Write the names to the right of a panel with a logarithmic y axis, each as near to the end of its line as possible."""
    low, high = axes.get_ylim()
    axes.set_xlim(right=max(axes.xaxis.get_majorticklocs()))
    ends = [_LINES_HEIGHT * math.log(label.at / low) / math.log(high / low) for label in labels]
    for label, end, place in zip(labels, ends, spread(ends, _NAME_HEIGHT, _LINES_HEIGHT), strict=True):
        axes.annotate(
            label.text,
            (1, end / _LINES_HEIGHT),
            (_LEADER_WIDTH, place - end),
            xycoords="axes fraction",
            textcoords="offset points",
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": _PALE, "shrinkA": 0, "shrinkB": 4, "relpos": (0, 0.5)},
            **label.font,
        )


def spread(wanted: Sequence[float], gap: float, room: float) -> list[float]:
    """Compute positions from 0 to `room`, in the order of the wanted ones and as near to them as the minimum gap allows.

    Positions that would be too close to each other are moved as a group around their mean, as in isotonic regression.
    """
    order = sorted(range(len(wanted)), key=lambda number: wanted[number])
    blocks: list[list[float]] = []
    for rank, number in enumerate(order):
        blocks.append([wanted[number] - rank * gap])
        while len(blocks) > 1 and statistics.fmean(blocks[-2]) > statistics.fmean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    highest = room - (len(wanted) - 1) * gap
    bases = [min(max(statistics.fmean(block), 0), highest) for block in blocks for _ in block]
    places = [0.0] * len(wanted)
    for rank, (number, base) in enumerate(zip(order, bases, strict=True)):
        places[number] = base + rank * gap
    return places


def write_at_row_ends(axes: Any, ends: Sequence[tuple[float, float]], texts: Sequence[str]) -> None:
    """Write a text to the right of each end (x, y), and widen the x axis by the space that the longest text needs."""
    width = axes.get_position().width * _WIDTH
    factor = width / (width - _LETTER_WIDTH * max(map(len, texts), default=0))
    low, high = axes.get_xlim()
    axes.set_xlim(low, low * (high / low) ** factor if axes.get_xscale() == "log" else low + (high - low) * factor)
    for end, text in zip(ends, texts, strict=True):
        axes.annotate(text, end, (8, 0), textcoords="offset points", va="center", fontsize=_SMALL, bbox=_BLANK)
