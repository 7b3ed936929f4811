"""A live view of the service in the terminal."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from rohe_inference import Client, Task
from rohe_inference.cli.config import Login
from rohe_inference.cli.connection import open_client
from rohe_inference.cli.exits import ExitCode, error_of
from rohe_inference.cli.help import ExampleCommand, service_options
from rohe_inference.cli.interactive_keys import pressed_key, unbuffered_keys
from rohe_inference.cli.service_tables import status_lines
from rohe_inference.cli.task_tables import TASK_COLUMNS, task_row
from rohe_inference.cli.terminal import console, printable, table
from rohe_inference.errors import Forbidden, InferenceError, Unauthenticated

_BLOCKS = "▁▂▃▄▅▆▇█"
_TREND_S = 60.0
_TREND_CELLS = 30
_LATEST = 10
_RECONNECT_S = 2.0


@click.command(
    cls=ExampleCommand,
    short_help="Show the service live.",
    examples=[
        ("rohe-inference top", "Live until q or Ctrl-C."),
        ("rohe-inference top --once", "Once, for scripts and mails."),
    ],
)
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(min=0.2),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks.",
)
@click.option("--once", is_flag=True, help="Print it once, and end; so does an output that is no terminal.")
@service_options
def top(login: Login, interval_s: float, *, once: bool) -> int:
    """Show queues, rates, workers and the latest tasks, live. q or Ctrl-C ends it."""
    out = console()
    with open_client(login) as client:
        if once or not out.is_terminal:
            status = client.status()
            for line in status_lines(status.raw):
                out.print(line)
            return ExitCode.FAILED if status.problems else ExitCode.OK
        latest = LatestTasks()
        threading.Thread(target=latest.follow, args=(client,), daemon=True).start()
        view = View(login.url)
        with unbuffered_keys(), Live(console=out, screen=True, auto_refresh=False, redirect_stderr=False) as live:
            try:
                while True:
                    live.update(view.render(_status_of(client), latest.tasks()), refresh=True)
                    if pressed_key(interval_s) in {"q", "Q"}:
                        break
            except KeyboardInterrupt:
                pass
    return ExitCode.OK


class LatestTasks:
    """The latest tasks, from the service's events."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: dict[str, Task] = {}

    def follow(self, client: Client) -> None:
        """Read events for ever; the loop of the view ends the program."""
        while True:
            with contextlib.suppress(InferenceError):  # the view says that the service does not answer
                for change in client.all_events():
                    self.take(list(change.tasks))
            time.sleep(_RECONNECT_S)

    def take(self, tasks: list[Task]) -> None:
        """Take tasks that were accepted or changed, newest first."""
        with self._lock:
            merged = self._tasks | {task.task_id: task for task in tasks}
            newest = sorted(merged.values(), key=lambda task: task.created_at, reverse=True)[:_LATEST]
            self._tasks = {task.task_id: task for task in newest}

    def tasks(self) -> list[Task]:
        """Return the latest tasks, newest first."""
        with self._lock:
            return list(self._tasks.values())


class View:
    """The picture of one moment; it remembers the rates of the last minute."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._rates: dict[str, deque[tuple[float, float]]] = {}

    def render(self, status: Mapping[str, Any] | str, tasks: list[Task]) -> Group:
        """Return the lines. `status` is a sentence if the service does not answer."""
        title = Text(f"{self._url}   {time.strftime('%H:%M:%S')}   q ends", style="reverse")
        if isinstance(status, str):
            return Group(title, Text(), Text(printable(status), "bold red"), Text("trying again", "dim"))
        lines = status_lines(status, self._trends(status))
        latest = table(TASK_COLUMNS, [task_row(task.raw) for task in tasks])
        return Group(title, Text(), *lines, Text(), *(latest if tasks else ()))

    def _trends(self, status: Mapping[str, Any]) -> dict[str, str]:
        now = time.monotonic()
        for model in status.get("models", ()):
            rates = self._rates.setdefault(model["model"], deque(maxlen=1000))
            rates.append((now, float(model["queue"]["drain_rate_per_s"])))
        return {name: trend(list(rates), now) for name, rates in self._rates.items()}


def trend(rates: list[tuple[float, float]], now: float) -> str:
    """Return the rates of the last minute as a line of blocks, the newest at the right; `rates` are times and rates."""
    cells = [0.0] * _TREND_CELLS
    for moment, rate in rates:
        index = _TREND_CELLS - 1 - int((now - moment) / _TREND_S * _TREND_CELLS)
        if index >= 0:
            cells[index] = max(cells[index], rate)
    most = max(cells)
    return "".join(_BLOCKS[round(rate / most * (len(_BLOCKS) - 1))] if most else _BLOCKS[0] for rate in cells)


def _status_of(client: Client) -> Mapping[str, Any] | str:
    """Return the status, or a sentence if there is none now. Raises Unauthenticated, Forbidden: there will be none."""
    try:
        return client.status().raw
    except (Unauthenticated, Forbidden):
        raise
    except InferenceError as error:
        return error_of(error).message
