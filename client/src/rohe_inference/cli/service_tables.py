"""Status of the service as tables. A status is the object of `GET /status`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from rohe_inference.cli.terminal import age, printable, table

_Status = Mapping[str, Any]


def status_lines(status: _Status, trends: Mapping[str, str] | None = None) -> list[Text]:
    """Return tables of stores, queues, workers and sinks, then numbers, warnings and problems.

    Args:
        trends: a column more, by model.
    """
    states = status["stores"].items()
    lines = _block(("STORE", "STATE"), [(store, Text("ok" if state == "ok" else "down", _ok(state))) for store, state in states])
    columns = ("MODEL", "VERSION", "WAITING", "OLDEST", "ENDED/S", "WORKERS", *(("LAST MINUTE",) if trends is not None else ()))
    lines += _block(columns, [_model_row(model, trends) for model in status.get("models", ())])
    lines += _block(("WORKER", "WARM MODELS"), [(one["worker"], _warm(one)) for one in status.get("workers", ())])
    lines += _block(("SINK", "WAITING", "OLDEST", "RELAYS"), [_sink_row(sink) for sink in status.get("sinks", ())])
    counts = (
        ("dead_letters", "dead letters"),
        ("rejected_messages", "rejected messages"),
        ("unstored_images", "images not stored yet"),
    )
    lines += [Text(f"{status[name]} {title}") for name, title in counts if status.get(name)]
    return lines + health_lines(status)


def health_lines(status: _Status) -> list[Text]:
    """Return warnings and problems; one line if all is well."""
    lines = [Text(f"warning: {printable(warning)}", "yellow") for warning in status.get("warnings", ())]
    lines += [Text(f"! {printable(problem)}", "bold red") for problem in status.get("problems", ())]
    return lines or [Text("all is well", "green")]


def _block(head: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> list[Text]:
    return [*table(head, rows), Text()] if rows else []


def _model_row(model: Mapping[str, Any], trends: Mapping[str, str] | None) -> list[str | Text]:
    queue = model["queue"]
    rate = queue["drain_rate_per_s"]
    waiting = Text(str(queue["depth"]), "yellow" if queue["depth"] else "")
    workers = Text(str(model["workers"]), "" if model["workers"] else "bold red")
    row = [model["model"], model["version"], waiting, age(queue["oldest_age_s"]), f"{rate:.1f}" if rate else "-", workers]
    return row if trends is None else [*row, trends.get(model["model"], "")]


def _sink_row(sink: Mapping[str, Any]) -> list[str]:
    relays = ", ".join(relay["relay"] for relay in sink["relays"]) or "none"
    return [sink["sink"], str(sink["outbox"]["entries"]), age(sink["outbox"]["oldest_age_s"]), relays]


def _warm(worker: Mapping[str, Any]) -> str:
    return ", ".join(f"{model['name']} {model['version']} ({model['predict_ms']:.1f} ms)" for model in worker["models"]) or "-"


def _ok(state: str) -> str:
    return "green" if state == "ok" else "bold red"
