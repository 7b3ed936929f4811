"""Send images: wait for their results, or only submit them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import click
from rich.console import Console

from rohe_inference.cli.commands.options import (
    chosen_photos,
    image_options,
    line_printer,
    open_journal,
    opened_output,
    run_options,
    run_options_of,
    task_options,
)
from rohe_inference.cli.concurrency import Retries, complete_all
from rohe_inference.cli.config import Login
from rohe_inference.cli.connection import open_async_client, predict_image, submit_image
from rohe_inference.cli.exits import ExitCode
from rohe_inference.cli.formats import CsvWriter, JsonLinesWriter, OutcomeWriter, SubmissionWriter, TableWriter
from rohe_inference.cli.help import ExampleCommand, service_options
from rohe_inference.cli.outcomes import Outcome
from rohe_inference.cli.photo_run import PhotoRun
from rohe_inference.cli.photos import STDIN
from rohe_inference.cli.progress import RunProgress
from rohe_inference.options import TaskOptions

#: Makes the writer for an output, given the names of all images.
MakeWriter = Callable[[Console, "list[str]"], OutcomeWriter]


@click.command(
    cls=ExampleCommand,
    short_help="Classify images.",
    examples=[
        ("rohe-inference predict photo.jpg --top 5", "The five most likely classes of a photo."),
        (
            "rohe-inference predict photos/ --recursive --csv -o labels.csv",
            "All images below a folder; the same command resumes it.",
        ),
        ("rohe-inference predict photos/ --json | jq -r .result.label | sort | uniq -c", "How many of each label."),
        ("curl -s https://example.org/cat.jpg | rohe-inference predict -", "The bytes of an image from stdin."),
        ("find . -name '*.png' -newer last | rohe-inference predict --files-from -", "The files of a list."),
    ],
)
@image_options
@click.option("--top", type=click.IntRange(min=1), metavar="N", help="The N most likely classes, not only the first.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="JSON Lines: an object in each line, with file, status, task_id, model, result, error.",
)
@click.option("--csv", "as_csv", is_flag=True, help="CSV with a row of names; with --top three columns more for each class.")
@click.option("--vector", is_flag=True, help="With --json: the whole vector too, as `prediction` of each result.")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False), help="Write to this file, which appears when the run is complete."
)
@run_options
@service_options
def predict(login: Login, top: int | None, output: str | None, *, as_json: bool, as_csv: bool, vector: bool, **given: Any) -> int:
    """Classify images, and print a label and its confidence for each.

    PHOTO is a file (PNG, JPEG, WebP, .npy), FOLDER the images in it, - the bytes of one image from stdin.

    A run over many images that was interrupted (Ctrl-C, a service that stopped) is resumed by the same command: it prints the
    results that are there, sends the images that have none, and sends nothing twice.
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv are two formats: choose one")
    if vector and not as_json:
        raise click.UsageError("--vector needs --json")
    options = task_options(given)
    options["prediction"] = vector
    if top:
        options["top_k"] = top

    def writer(out: Console, names: list[str]) -> OutcomeWriter:
        if as_json:
            return JsonLinesWriter(line_printer(out))
        return CsvWriter(line_printer(out), top=top) if as_csv else TableWriter(names, out)

    return _send_all(login, given, options, waits=True, make_writer=writer, output=output)


@click.command(
    cls=ExampleCommand,
    short_help="Submit images, and print their task ids.",
    examples=[
        ("rohe-inference submit photo.jpg", "Prints the id of its task, and the file."),
        ("rohe-inference submit photos/ | rohe-inference wait -", "Submit all, then wait for the results."),
    ],
)
@image_options
@click.option("--json", "as_json", is_flag=True, help="JSON Lines: file, status, task_id, model, result, error.")
@run_options
@service_options
def submit(login: Login, *, as_json: bool, **given: Any) -> int:
    """Submit images, and print the id of each task without waiting for it. Resumed as `predict` is.

    Each line has the id of a task and the file; `wait`, `status`, `cancel` and `erase` take such lines with -.
    """

    def writer(out: Console, _: list[str]) -> OutcomeWriter:
        return JsonLinesWriter(line_printer(out)) if as_json else SubmissionWriter(line_printer(out))

    return _send_all(login, given, task_options(given), waits=False, make_writer=writer)


def _send_all(
    login: Login,
    given: dict[str, Any],
    options: TaskOptions,
    *,
    waits: bool,
    make_writer: MakeWriter,
    output: str | None = None,
) -> int:
    """Send the named photos, and write the outcomes. Return the exit code."""
    if list(given["photos"]) == [STDIN] and given["files_from"] is None:
        data = sys.stdin.buffer.read()
        if not data:
            raise click.UsageError("no bytes came from stdin")
        with opened_output(output) as out:
            outcome = asyncio.run(_send_one(login, data, options, waits=waits))
            make_writer(out, [STDIN]).write(STDIN, outcome)
        return ExitCode.FAILED if outcome.has_failed else ExitCode.OK
    photos = chosen_photos(given["photos"], given["files_from"], recursive=given["recursive"])
    journal = open_journal(photos, login, {"waits": waits, **options}, given, output)
    with opened_output(output) as out:
        writer = make_writer(out, [photo.name for photo in photos])
        run = PhotoRun(photos, journal, run_options_of(given, options, waits=waits), writer)
        return run.run(login, RunProgress(len(photos), out))


async def _send_one(login: Login, data: bytes, options: TaskOptions, *, waits: bool) -> Outcome:
    send = predict_image if waits else submit_image

    def notice(sentence: str) -> None:
        if sentence:
            click.echo(sentence, err=True)

    async with open_async_client(login, 1) as client:
        retries = Retries(0, notice)
        calls = complete_all([data], lambda image: send(client, image, options), concurrency=1, retries=retries)
        (outcome,) = [outcome async for _, outcome in calls]
        return outcome
