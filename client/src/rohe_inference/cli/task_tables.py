"""Tasks as lines and tables. A task is the object of `GET /tasks/{task_id}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from rohe_inference.cli.exits import problem_text
from rohe_inference.cli.formats import classes_of
from rohe_inference.cli.terminal import age_since, bar, percentage, printable, status_text

TASK_COLUMNS = ("TASK", "STATUS", "MODEL", "LABEL", "CONFIDENCE", "AGE")

#: characters of a label or problem in a table
_MAX_CHARACTERS = 60

_Task = Mapping[str, Any]


def task_row(task: _Task) -> Sequence[str | Text]:
    """Return the cells of `TASK_COLUMNS`."""
    label, share = _best(task)
    model = task["model"]["name"] if task.get("model") else "-"
    shown = label if task.get("result") else _problem(task)
    if len(shown) > _MAX_CHARACTERS:
        shown = f"{shown[:_MAX_CHARACTERS]}…"
    return task["task_id"], status_text(task["status"]), model, shown, share, age_since(task["created_at"])


def task_line(task: _Task) -> Text:
    """Return a task in one line."""
    label, share = _best(task)
    line = Text(f"{task['task_id']}  ").append_text(status_text(task["status"]))
    if task.get("replay_of"):
        line.append(f"  replay of {task['replay_of']}")
    if task.get("result"):
        return line.append(f"  {printable(label)}  {share}")
    return line.append(f"  {_problem(task)}".rstrip())


def task_details(task: _Task) -> list[Text]:
    """Return everything about a task but its vector, a line for each part."""
    model = task.get("model") or {}
    parts: list[tuple[str, Any]] = [
        ("task", task["task_id"]),
        ("request id", task["request_id"] if task["request_id"] != task["task_id"] else None),
        ("status", status_text(task["status"])),
        ("model", " ".join(str(model[name]) for name in ("name", "version", "digest") if model.get(name))),
        ("queue", _place(task.get("queue"))),
        ("accepted", _time(task["created_at"])),
        ("started", _time(task.get("started_at"))),
        ("ended", _time(task.get("finished_at"))),
        ("deadline", task.get("deadline_at") if task.get("finished_at") is None else None),
        ("error", problem_text(task["error"]) if task.get("error") else None),
        ("batch", task.get("batch_id")),
        ("replay of", task.get("replay_of")),
        ("attempts", task["attempts"] if task["attempts"] > 1 else None),
        ("steps", ", ".join(f"{name.removesuffix('_ms')} {value:.1f} ms" for name, value in task["timings"].items())),
        ("deliveries", ", ".join(f"{one['sink']} {one['status']}" for one in task["deliveries"])),
    ]
    lines = [_part(title, value) for title, value in parts if value]
    for index, (label, confidence) in enumerate(classes_of(task["result"]) if task.get("result") else ()):
        lines.append(_part("" if index else "result", f"{bar(confidence)} {percentage(confidence)}  {label}"))
    return lines


def _part(title: str, value: Any) -> Text:
    line = Text(f"{title:<12}", style="dim")
    return line.append_text(value if isinstance(value, Text) else Text(printable(str(value)), style="not dim"))


def _best(task: _Task) -> tuple[str, str]:
    if not task.get("result"):
        return "", ""
    label, confidence = classes_of(task["result"])[0]
    return label, percentage(confidence).strip()


def _problem(task: _Task) -> str:
    if task.get("error"):
        return printable(problem_text(task["error"]))
    return _place(task.get("queue")) or ""


def _place(place: Mapping[str, Any] | None) -> str | None:
    if not place:
        return None
    eta = f", about {place['eta_s']:.0f} s" if place.get("eta_s") is not None else ""
    return f"{place['position']} before it{eta}"


def _time(timestamp: str | None) -> str | None:
    return f"{timestamp} ({age_since(timestamp)} ago)" if timestamp else None
