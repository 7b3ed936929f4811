"""Send images: wait for their results, or only submit them."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console

from rohe_inference.cli.commands.options import (
    chosen_images,
    image_options,
    line_printer,
    open_journal,
    opened_output,
    run_options,
    task_options,
)
from rohe_inference.cli.config import Login
from rohe_inference.cli.connection import open_async_client, predicting, predicting_many, submitting
from rohe_inference.cli.formats import CsvWriter, JsonLinesWriter, OutcomeWriter, SubmissionWriter, TableWriter
from rohe_inference.cli.help import ExampleCommand, service_options
from rohe_inference.cli.progress import RunProgress
from rohe_inference.cli.running import ImageRun, RunLimits


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
    images = chosen_images(given["photos"], given["files_from"], recursive=given["recursive"])
    options = task_options(given)
    options["prediction"] = vector
    if top:
        options["top_k"] = top
    journal = open_journal(images, login, {"command": "predict", **options}, given, output)
    names = [image.name for image in images]
    predict_one = predicting if len(images) == 1 else predicting_many

    def writer(out: Console) -> OutcomeWriter:
        if as_json:
            return JsonLinesWriter(line_printer(out))
        return CsvWriter(line_printer(out), top=top) if as_csv else TableWriter(names, out)

    with opened_output(output) as out:
        run = ImageRun(images, journal, RunLimits(given["concurrency"], given["retry_for_s"]), writer(out))
        return run.run(
            open_async_client(login, given["concurrency"]),
            lambda client: predict_one(client, options),
            lambda done: RunProgress(len(images), done, out),
        )


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
    images = chosen_images(given["photos"], given["files_from"], recursive=given["recursive"])
    options = task_options(given)
    journal = open_journal(images, login, {"command": "submit", **options}, given, None)
    with opened_output(None) as out:
        lines = line_printer(out)
        writer = JsonLinesWriter(lines) if as_json else SubmissionWriter(lines)
        run = ImageRun(images, journal, RunLimits(given["concurrency"], given["retry_for_s"]), writer)
        return run.run(
            open_async_client(login, given["concurrency"]),
            lambda client: submitting(client, options),
            lambda done: RunProgress(len(images), done, out),
        )
