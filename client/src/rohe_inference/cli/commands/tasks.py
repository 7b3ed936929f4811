"""Commands for tasks: list them, wait for them, follow, cancel, replay and erase them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import click

from rohe_inference import AsyncClient, Client, Erasure, NotFound, Task, WaitTimeout
from rohe_inference.cli.commands.options import line_printer
from rohe_inference.cli.concurrency import Retries, complete_all
from rohe_inference.cli.config import Login
from rohe_inference.cli.connection import open_async_client, open_client, outcome_of_task, raise_outage
from rohe_inference.cli.exits import CommandError, ExitCode, error_of
from rohe_inference.cli.formats import JsonLinesWriter, OutcomeWriter, TableWriter
from rohe_inference.cli.help import ExampleCommand, json_option, service_options
from rohe_inference.cli.outcomes import Outcome, json_line
from rohe_inference.cli.progress import RunProgress
from rohe_inference.cli.task_ids import named_tasks
from rohe_inference.cli.task_tables import TASK_COLUMNS, task_line, task_row
from rohe_inference.cli.terminal import console, table
from rohe_inference.errors import ApiError, ConnectionFailed, InferenceError
from rohe_inference.tasks import TERMINAL_STATUSES

_STATUSES = ("queued", "running", "succeeded", "failed", "canceled", "expired")
_CONCURRENT_WAITS = 32
#: an outage that lasts longer ends `wait`, seconds
_RETRY_FOR_S = 300.0

task_arguments = click.argument("task_ids", nargs=-1, metavar="TASK|-", required=True)


@click.command(
    cls=ExampleCommand,
    short_help="Wait for tasks, and print their results.",
    examples=[
        ("rohe-inference wait 0195f2c7a1b0", "Wait for a task, and print its result as `predict` does."),
        ("rohe-inference submit photos/ | rohe-inference wait - --timeout 60", "Wait for many, at most a minute."),
    ],
)
@task_arguments
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0), metavar="SECONDS", help="Give up then, with exit code 6.")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines, as of `predict`.")
@service_options
def wait(login: Login, task_ids: tuple[str, ...], timeout_s: float | None, *, as_json: bool) -> int:
    """Wait for tasks, and print each result when it is there.

    - reads the lines that `submit` prints.
    """
    names = named_tasks(task_ids)
    out = console()
    writer = JsonLinesWriter(line_printer(out)) if as_json else TableWriter(list(names.values()), out, title="TASK")
    with RunProgress(len(names), out) as progress:
        statuses = asyncio.run(_wait_for_all(login, names, timeout_s, writer, progress))
    if statuses - TERMINAL_STATUSES - {"gone"}:
        return ExitCode.NOT_ENDED
    return ExitCode.OK if statuses == {"succeeded"} else ExitCode.FAILED


async def _wait_for_all(
    login: Login, names: dict[str, str], timeout_s: float | None, writer: OutcomeWriter, progress: RunProgress
) -> set[str]:
    statuses: set[str] = set()
    end = None if timeout_s is None else time.monotonic() + timeout_s
    async with open_async_client(login, _CONCURRENT_WAITS) as client:

        async def wait_for(task_id: str) -> Outcome:
            return await _wait_for(client, task_id, None if end is None else max(0.0, end - time.monotonic()))

        retries = Retries(_RETRY_FOR_S if timeout_s is None else timeout_s, progress.notice)
        async for task_id, outcome in complete_all(names, wait_for, concurrency=_CONCURRENT_WAITS, retries=retries):
            progress.advance(has_failed=outcome.has_failed)
            writer.write(names[task_id], outcome)
            statuses.add(outcome.status)
    return statuses


async def _wait_for(client: AsyncClient, task_id: str, timeout_s: float | None) -> Outcome:
    try:
        return outcome_of_task(await client.wait(task_id, timeout_s=timeout_s))
    except WaitTimeout:
        return outcome_of_task(await client.task(task_id))
    except NotFound as error:
        return Outcome("gone", task_id, error=dict(error.raw))
    except (ApiError, ConnectionFailed) as error:
        raise_outage(error)
        raise


@click.command(
    cls=ExampleCommand,
    examples=[
        ("rohe-inference tasks --status failed,expired --since 2026-01-31T00:00:00Z", "What failed since then."),
        ("rohe-inference tasks --all --json | jq -r .task_id", "The ids of all tasks that the service lists."),
    ],
)
@click.option("--status", metavar="STATUS,…", help=f"Some of {', '.join(_STATUSES)}.")
@click.option("--model", metavar="NAME", help="Tasks of this model.")
@click.option("--request-id", metavar="ID", help="Tasks with this id of your own.")
@click.option("--owner", metavar="NAME", help="Tasks of this owner; a key with the role predict sees its own alone.")
@click.option("--since", metavar="TIME", help="Accepted then or later: 2026-01-31T12:00:00Z, or seconds since the epoch.")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    default=20,
    show_default=True,
    help="The newest ones, at most this many.",
)
@click.option("--all", "is_all", is_flag=True, help="All that match, page after page.")
@json_option
@service_options
def tasks(login: Login, limit: int, status: str | None, *, is_all: bool, as_json: bool, **wanted: Any) -> None:
    """List tasks, newest first."""
    statuses = status.replace(" ", "").split(",") if status else None
    if unknown := set(statuses or ()) - set(_STATUSES):
        raise click.UsageError(f"--status has {', '.join(sorted(unknown))}; the statuses are {', '.join(_STATUSES)}")
    out = console()
    with open_client(login) as client:
        found: Iterable[Task] = client.tasks(status=statuses, page_size=500 if is_all else min(limit, 500), **wanted)
        if not is_all:
            found = islice(found, limit)
        if as_json:
            lines = line_printer(out)
            for task in found:
                lines(json_line(task.raw))
            return
        rows = [task_row(task.raw) for task in found]
    for line in table(TASK_COLUMNS, rows):
        out.print(line)


@click.command(
    cls=ExampleCommand, examples=[("rohe-inference cancel 0195f2c7a1b0", "Its result, if there will be one, is discarded.")]
)
@task_arguments
@json_option
@service_options
def cancel(login: Login, task_ids: tuple[str, ...], *, as_json: bool) -> int:
    """Cancel tasks that have not ended."""
    return _for_each(login, task_ids, lambda client, task_id: client.cancel(task_id), as_json=as_json)


@click.command(
    cls=ExampleCommand,
    short_help="Run images again, as new tasks.",
    examples=[
        ("rohe-inference replay 0195f2c7a1b0", "Prints the new task."),
        ("rohe-inference tasks --status expired --json | rohe-inference replay -", "Run everything again that has expired."),
    ],
)
@task_arguments
@json_option
@service_options
def replay(login: Login, task_ids: tuple[str, ...], *, as_json: bool) -> int:
    """Run the images of tasks that have ended again, as new tasks."""
    return _for_each(login, task_ids, lambda client, task_id: client.replay(task_id), as_json=as_json)


@click.command(
    cls=ExampleCommand,
    short_help="Remove tasks with everything of them.",
    examples=[
        ("rohe-inference erase 0195f2c7a1b0", "Asks, then removes everything of the task."),
        ("rohe-inference erase --request-id photo-1", "All tasks with an id of your own."),
    ],
)
@click.argument("task_ids", nargs=-1, metavar="[TASK|-]")
@click.option("--request-id", metavar="ID", help="Instead of TASK: all tasks with this id of your own.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@service_options
def erase(login: Login, task_ids: tuple[str, ...], request_id: str | None, *, yes: bool) -> int:
    """Remove everything that the service has of tasks: record, image, result.

    A sink that cannot delete, or does not answer now, is named.
    """
    if request_id is not None:
        if task_ids:
            raise click.UsageError("TASK and --request-id: give one of them")
        _confirm_erasure(f"all tasks with the request id {request_id}", yes=yes)
        with open_client(login) as client:
            for erasure in client.erase_request(request_id):
                _show_erasure(erasure)
        return ExitCode.OK
    names = named_tasks(task_ids)
    if "-" in task_ids and not yes:
        raise click.UsageError("erase - needs --yes, since stdin has the list of tasks")
    _confirm_erasure(f"{len(names)} task{'s' * (len(names) > 1)}", yes=yes)
    return _for_each(login, tuple(names), lambda client, task_id: _show_erasure(client.erase(task_id)), as_json=False)


def _confirm_erasure(what: str, *, yes: bool) -> None:
    if not yes and not click.confirm(f"Erase {what}? This cannot be undone.", err=True):
        raise CommandError("nothing was erased")


def _show_erasure(erasure: Erasure) -> None:
    left = ", ".join(f"{store}: {state}" for store, state in erasure.stores.items() if state != "erased")
    for task_id in erasure.task_ids:
        click.echo(f"{task_id}  erased" + (f"  ({left})" if left else ""))


@click.command(
    cls=ExampleCommand,
    short_help="Follow a task, or all.",
    examples=[
        ("rohe-inference events 0195f2c7a1b0", "Each change of a task until it has ended."),
        ("rohe-inference events --model flowers --json", "Every task of a model, until Ctrl-C."),
    ],
)
@click.argument("task_id", required=False, metavar="[TASK]")
@click.option("--status", metavar="STATUS,…", help="Without TASK: only tasks with these statuses.")
@click.option("--model", metavar="NAME", help="Without TASK: only tasks of this model.")
@click.option("--request-id", metavar="ID", help="Without TASK: only tasks with this id of your own.")
@json_option
@service_options
def events(login: Login, task_id: str | None, *, as_json: bool, **wanted: str | None) -> None:
    """Follow a task until it has ended; without one, all tasks: the newest ones, then every change, until Ctrl-C."""
    if task_id and any(wanted.values()):
        raise click.UsageError("--status, --model and --request-id are for all tasks: leave them out with TASK")
    out = console()
    lines = line_printer(out)
    with open_client(login) as client:
        states = client.events(task_id) if task_id else _all_states(client, wanted)
        for state in states:
            if as_json:
                lines(json_line(state.raw))
            else:
                out.print(task_line(state.raw))


def _all_states(client: Client, wanted: dict[str, Any]) -> Iterable[Task]:
    for change in client.all_events(**wanted):
        yield from reversed(change.tasks)
        if change.omitted:
            click.echo(f"({change.omitted} more changed)", err=True)


def _for_each(login: Login, task_ids: tuple[str, ...], call: Callable[[Client, str], Task | None], *, as_json: bool) -> int:
    """Call the service for each task, and print the task that it returns; a task that fails does not stop the others."""
    code = ExitCode.OK
    out = console()
    lines = line_printer(out)
    with open_client(login) as client:
        for task_id in named_tasks(task_ids):
            try:
                task = call(client, task_id)
            except InferenceError as error:  # noqa: PERF203 - each call is a request
                failure = error_of(error)
                if failure.exit_code in {ExitCode.UNREACHABLE, ExitCode.FORBIDDEN}:
                    raise failure from error
                click.echo(f"{task_id}: {failure.message}", err=True)
                code = ExitCode.REFUSED
            else:
                if task is not None and as_json:
                    lines(json_line(task.raw))
                elif task is not None:
                    out.print(task_line(task.raw))
    return code
