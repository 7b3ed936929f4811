"""Options of the commands that send images."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.text import Text

from rohe_inference.cli.config import Login
from rohe_inference.cli.journal import Journal, default_journal
from rohe_inference.cli.photo_run import RunOptions
from rohe_inference.cli.photos import STDIN, Photo, find_photos, listed_photos
from rohe_inference.cli.terminal import console
from rohe_inference.options import TaskOptions

Function = TypeVar("Function", bound=Callable[..., Any])


def image_options(function: Function) -> Function:
    """Add the options that say which images, and how they are to be run."""
    return _add(
        function,
        click.argument("photos", nargs=-1, metavar="PHOTO|FOLDER|-", type=click.Path()),
        click.option("-r", "--recursive", is_flag=True, help="Also the images in subfolders."),
        click.option("--files-from", metavar="FILE", help="List of files, one path in each line; `-` reads it from stdin."),
        click.option("--model", metavar="NAME", help="Model; default: the service's default model."),
        click.option(
            "--deadline",
            "deadline_s",
            type=click.FloatRange(min=0, min_open=True),
            metavar="SECONDS",
            help="Give up an image that has not ended in this time.",
        ),
        click.option("--priority", type=click.IntRange(0, 9), metavar="N", help="0 (usual) to 9 (goes first)."),
        click.option("--sink", "sinks", multiple=True, metavar="NAME", help="Sink that gets the result; or `none`; repeatable."),
        click.option("--request-id", metavar="ID", help="Id of your own, which `tasks --request-id` finds."),
        click.option("--webhook", metavar="URL", help="Receiver of an event when a task has ended."),
        click.option("--shape", metavar="H,W,C", help="Shape of files that are bytes of arrays, with --dtype."),
        click.option("--dtype", metavar="NAME", help="Type of their numbers: uint8, float32."),
    )


def run_options(function: Function) -> Function:
    """Add the options of a run over many images."""
    return _add(
        function,
        click.option(
            "--batch-size", type=click.IntRange(1, 256), metavar="N", default=32, show_default=True, help="Images in a request."
        ),
        click.option(
            "--concurrency", type=click.IntRange(1, 64), metavar="N", default=8, show_default=True, help="Requests at a time."
        ),
        click.option(
            "--retry-for",
            "retry_for_s",
            type=click.FloatRange(min=0),
            default=300,
            show_default=True,
            metavar="SECONDS",
            help="How long to try again when the service stops answering in the middle.",
        ),
        click.option(
            "--journal",
            type=click.Path(dir_okay=False),
            help="Journal of the run, which is kept: the same command later sends new images alone. Default: beside the file of "
            "--output, else in $XDG_STATE_HOME/rohe-inference/journals (~/.local/state), deleted when every image has succeeded.",
        ),
        click.option("--no-journal", is_flag=True, help="Keep no journal: the run cannot be resumed."),
        click.option("--restart", is_flag=True, help="Forget an earlier run, and send all images again, as new tasks."),
        click.option("--retry-failed", is_flag=True, help="Send the images that failed in an earlier run again, as new tasks."),
    )


def chosen_photos(names: Sequence[str], files_from: str | None, *, recursive: bool) -> list[Photo]:
    """Return the files that arguments or --files-from name. Raises click.UsageError."""
    if files_from is not None:
        if names:
            raise click.UsageError("name images, or a list of them with --files-from, not both")
        with click.open_file(files_from, "rb") as lines:
            return listed_photos(map(os.fsdecode, lines))
    if not names:
        raise click.UsageError("name one image at least: a file, a folder, or - for the bytes of one from stdin")
    if STDIN in names:
        raise click.UsageError("- is the bytes of one image from stdin: send other images with another command")
    return find_photos(names, is_recursive=recursive)


def task_options(given: dict[str, Any]) -> TaskOptions:
    """Return the options of each task from the user's. Raises click.UsageError."""
    options = TaskOptions()
    if given["model"]:
        options["model"] = given["model"]
    if given["deadline_s"]:
        options["deadline_s"] = given["deadline_s"]
    if given["priority"] is not None:
        options["priority"] = given["priority"]
    if given["sinks"]:
        options["sinks"] = [] if list(given["sinks"]) == ["none"] else list(given["sinks"])
    if given["request_id"]:
        options["request_id"] = given["request_id"]
    if given["webhook"]:
        options["webhook"] = given["webhook"]
    if (given["shape"] is None) != (given["dtype"] is None):
        raise click.UsageError("--shape and --dtype belong together")
    if given["shape"]:
        options["shape"] = _shape(given["shape"])
        options["dtype"] = given["dtype"]
    return options


def run_options_of(given: dict[str, Any], task: TaskOptions, *, waits: bool) -> RunOptions:
    """Return the options of the run from the user's."""
    return RunOptions(
        task=task,
        waits=waits,
        concurrency=given["concurrency"],
        batch_size=given["batch_size"],
        retry_for_s=given["retry_for_s"],
        retry_failed=given["retry_failed"],
    )


def open_journal(
    photos: Sequence[Photo], login: Login, options: dict[str, Any], given: dict[str, Any], output: str | None
) -> Journal:
    """Open the journal of a run; in memory for one photo, with --no-journal, or, with a warning, where none can be written.

    Raises:
        JournalError: the journal cannot be used.
        click.UsageError: the file that the user named cannot be written.
    """
    if given["no_journal"] or (len(photos) == 1 and given["journal"] is None):
        return Journal(None, options)
    names = given["photos"] or [photo.name for photo in photos]
    place = given["journal"] or (f"{output}.journal" if output else default_journal(login.url, names, options))
    is_named = given["journal"] is not None
    try:
        return Journal(Path(place), {"url": login.url, **options}, restart=given["restart"], is_permanent=is_named)
    except OSError as error:
        if is_named:
            raise click.UsageError(f"the journal {place} cannot be written: {error.strerror}") from error
        click.echo(f"warning: this run cannot be resumed, since {place} cannot be written: {error.strerror}", err=True)
        return Journal(None, options)


@contextlib.contextmanager
def opened_output(path: str | None) -> Iterator[Console]:
    """Open the output: stdout, or a file that appears when everything has been written to it."""
    if path is None:
        yield console()
        return
    part = Path(f"{path}.part")
    with part.open("w", encoding="utf-8", newline="") as file:
        yield Console(file=file, highlight=False, markup=False, emoji=False, soft_wrap=True, color_system=None)
    part.replace(path)


def line_printer(out: Console) -> Callable[[str], None]:
    """Return the call that prints a line of JSON or CSV, on a terminal above the progress bar."""
    if out.is_terminal:
        return lambda line: out.print(Text(line))
    file: Any = out.file

    def write(line: str) -> None:
        file.write(line + "\n")
        file.flush()

    return write


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        raise click.UsageError(f"--shape {text!r} is no shape; one looks like 32,32,3") from None


def _add(function: Function, *options: Callable[[Function], Function]) -> Function:
    for option in reversed(options):
        function = option(function)
    return function
