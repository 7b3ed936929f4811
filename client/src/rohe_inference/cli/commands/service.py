"""Commands for the service: its status and its models; `status` also describes tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from rich.text import Text

from rohe_inference.cli.commands.options import line_printer
from rohe_inference.cli.config import Login
from rohe_inference.cli.connection import open_client
from rohe_inference.cli.exits import ExitCode
from rohe_inference.cli.help import ExampleCommand, json_option, service_options
from rohe_inference.cli.outcomes import json_line
from rohe_inference.cli.service_tables import status_lines
from rohe_inference.cli.task_ids import named_tasks
from rohe_inference.cli.task_tables import task_details
from rohe_inference.cli.terminal import console, table

_SHOWN_LABELS = 8


@click.command(
    cls=ExampleCommand,
    examples=[
        (
            "rohe-inference status",
            "Stores, queues, workers, sinks, and problems of the service; exit code 1 if there are problems.",
        ),
        ("rohe-inference status 0195f2c7a1b0", "Everything about a task."),
    ],
)
@click.argument("task_ids", nargs=-1, metavar="[TASK|-]")
@json_option
@service_options
def status(login: Login, task_ids: tuple[str, ...], *, as_json: bool) -> int:
    """Show the service, or tasks."""
    out = console()
    lines = line_printer(out)
    with open_client(login) as client:
        if not task_ids:
            found = client.status()
            if as_json:
                lines(json_line(found.raw))
            else:
                for line in status_lines(found.raw):
                    out.print(line)
            return ExitCode.FAILED if found.problems else ExitCode.OK
        for index, task_id in enumerate(named_tasks(task_ids)):
            task = client.task(task_id)
            if as_json:
                lines(json_line(task.raw))
                continue
            out.print(Text("\n" * (index > 0)).append_text(Text("\n").join(task_details(task.raw))))
    return ExitCode.OK


@click.command(
    cls=ExampleCommand,
    examples=[
        ("rohe-inference models", "All models; * is the one that requests without --model get."),
        ("rohe-inference models efficientnet-lite0 --json | jq .labels", "One model, with its labels and workers."),
    ],
)
@click.argument("name", required=False, metavar="[MODEL]")
@json_option
@service_options
def models(login: Login, name: str | None, *, as_json: bool) -> None:
    """List models, or describe one."""
    out = console()
    with open_client(login) as client:
        found = [client.model(name)] if name else client.models()
    if as_json:
        lines = line_printer(out)
        for model in found:
            lines(json_line(model.raw))
        return
    for line in table(("MODEL", "VERSION", "INPUT", "LABELS", "RUNTIME", "IMAGES/S", "WORKERS"), [_row(m.raw) for m in found]):
        out.print(line)
    if name:
        for part in _details(found[0].raw):
            out.print(part)


def _row(model: Mapping[str, Any]) -> list[str]:
    shape = "x".join("?" if size is None else str(size) for size in model["input"].get("shape") or ())
    rate = model["images_per_s"]
    return [
        f"{model['name']} *" if model["default"] else model["name"],
        model["version"],
        f"{shape} {model['input'].get('dtype') or ''}".strip() or "-",
        str(model["label_count"]),
        model["runtime"] or "-",
        f"{rate:.0f}" if rate is not None else "-",
        str(model["warm_workers"]),
    ]


def _details(model: Mapping[str, Any]) -> list[str]:
    parts = {name: model.get(name) for name in ("description", "task", "threshold", "top_k", "license", "source", "digest")}
    lines = ["", *(f"{name:<12}{value}" for name, value in parts.items() if value)]
    labels = model.get("labels") or ()
    if labels:
        rest = f", … ({len(labels)}; --json has all)" if len(labels) > _SHOWN_LABELS else ""
        shown = ", ".join(labels[:_SHOWN_LABELS]) + rest
        lines.append(f"{'labels':<12}{shown}")
    return lines
