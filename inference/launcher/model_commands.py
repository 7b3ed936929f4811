"""Commands that take a model's file: `serve`, `models check` and `models init`."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from inference.errors import ConfigurationError
from inference.models.inspection.description import Choices
from inference.settings import Settings
from inference.settings.installation import APPLICATION, COMMAND

if TYPE_CHECKING:
    from inference.launcher.served_files import NamedModel, ServedFiles

_SIZE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})")
_WHERE = "a file, a SavedModel's folder, a folder with a model.yaml, or s3://BUCKET/KEY"
_SERVE_EXAMPLES = """examples:
  server.py serve flowers.keras                       a labels.txt beside it is found
  server.py serve flowers.keras --labels names.txt --port 8080
  server.py serve resnet.onnx --scale imagenet --activation softmax
  server.py serve cats.tflite dogs.keras              several; the first is the default
  server.py serve models/efficientnet-lite0           as its model.yaml says
  server.py serve s3://models/flowers.keras           in the MinIO of the settings

Nothing is guessed in silence: if the file does not say how pixels are scaled, name it (--scale).
Tasks, results and converted models are kept in data_dir, which the start prints; INFERENCE_DATA_DIR=FOLDER names another.
"""
_CHECK_EXAMPLES = """examples:
  server.py models check flowers.keras --image rose.jpg
  server.py models check models/efficientnet-lite0 --json

exit code: 0 the model would be served; 2 the file, its description or the image is wrong; 1 for anything else
"""
_INIT_EXAMPLES = """example:
  server.py models init flowers/flowers.keras > flowers/model.yaml; server.py serve flowers

Its paths are relative to the folder of the model: save it there.
"""


def add_commands(
    commands: Any, shared: argparse.ArgumentParser, address: argparse.ArgumentParser
) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """Add `serve` and `models` to the subparsers of `server.py`, and return their parsers.

    An action of `models` sets `model_action` to its function, which takes the options and the settings.
    """
    choices = _choices_parser()
    raw = argparse.RawDescriptionHelpFormatter
    serve = commands.add_parser(
        "serve",
        parents=[shared, address, choices],
        help="serve model files: everything on this machine",
        description="Serve models with everything on this machine, as without a command.",
        epilog=_with_command(_SERVE_EXAMPLES),
        formatter_class=raw,
    )
    serve.add_argument("models", nargs="+", metavar="MODEL", help=_WHERE)
    models = commands.add_parser("models", help="check a model's file, or write its description")
    _add_actions(models.add_subparsers(metavar="ACTION", required=True), [shared, choices])
    return serve, models


def _add_actions(actions: Any, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Add `check` and `init` to the subparsers of `models`."""
    raw = argparse.RawDescriptionHelpFormatter
    check = actions.add_parser(
        "check",
        parents=parents,
        help="load and time a model, without the service",
        description="Load, warm up and time a model with each runtime, without the service.",
        epilog=_with_command(_CHECK_EXAMPLES),
        formatter_class=raw,
    )
    check.add_argument("models", nargs="+", metavar="MODEL", help=_WHERE)
    check.add_argument("--image", type=Path, metavar="PHOTO", help="classify this picture too: its five most likely classes")
    check.add_argument("--json", action="store_true", help="print JSON")
    init = actions.add_parser(
        "init",
        parents=parents,
        help="write the model.yaml of a file to the standard output, to go on with",
        epilog=_with_command(_INIT_EXAMPLES),
        formatter_class=raw,
    )
    init.add_argument("models", nargs=1, metavar="MODEL", help=_WHERE)
    check.set_defaults(model_action=check_models)
    init.set_defaults(model_action=init_model)


def _with_command(examples: str) -> str:
    """Name the command as the user typed it: from a wheel it is another one."""
    return examples.replace("server.py", COMMAND)


def _choices_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group(
        "description of files without a model.yaml, the same for each of several (docs/models.md has the keys)"
    )
    group.add_argument("--name", help="the model's name; default: that of the file")
    group.add_argument("--labels", metavar="FILE", help="one label a line; default: labels.txt beside the file, or its metadata")
    group.add_argument("--scale", help="1/255, -1..1, 0..1, imagenet, none or a number; needed if the file does not say it")
    group.add_argument("--size", type=_size, metavar="HEIGHTxWIDTH", help="for a model of images of any size")
    group.add_argument("--layout", choices=["nhwc", "nchw"], help="order of the graph's dimensions; default: as its shape says")
    group.add_argument("--channel-order", choices=["rgb", "bgr"], help="default: rgb")
    group.add_argument("--resize", choices=["center_crop", "stretch"], help="default: center_crop")
    group.add_argument("--output", metavar="NAME", help="the output with the classes, for a model with several outputs")
    group.add_argument("--activation", choices=["softmax", "sigmoid", "none"], help="for a model that gives logits")
    group.add_argument("--threshold", type=float, help="results are confident from here on, 0 to 1")
    return parser


def join_scale(arguments: Sequence[str]) -> list[str]:
    """Write `--scale -1..1` as `--scale=-1..1`, since argparse takes a value that begins with a minus for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--scale" and argument[:1] == "-" and argument[1:2].isdigit():
            joined[-1] = f"--scale={argument}"
        else:
            joined.append(argument)
    return joined


def prepare_serving(options: argparse.Namespace, settings: Settings) -> None:
    """Describe the named models, print their descriptions, and make them the service's own.

    Raises:
        ConfigurationError, ServiceUnavailable: see `ServedFiles.read`.
    """
    from inference.launcher.served_files import serve_only  # noqa: PLC0415 other commands need less memory

    files, models = _read(options, settings)
    serve_only(models, files)
    for model in models:
        _print("\n".join(model.summaries))


def check_models(options: argparse.Namespace, settings: Settings) -> int:
    """Try each model, and print the result; returns the exit code."""
    from inference.launcher.model_check import read_photo, table, try_model  # noqa: PLC0415 as above

    photo = read_photo(options.image) if options.image else None
    _, models = _read(options, settings)
    documents = []
    for model in models:
        if not options.json:
            _print("\n".join(model.summaries))
        trials = []
        for spec in model.specs:
            for trial in try_model(spec, settings, photo):
                trials.append(trial.as_json())
                if not options.json:
                    _print(table(trial).rstrip("\n"))
        documents.append({"found": model.summaries, "trials": trials})
    if options.json:
        _print(orjson.dumps(documents, option=orjson.OPT_INDENT_2).decode())
    return 0


def init_model(options: argparse.Namespace, settings: Settings) -> int:
    """Print a model.yaml; returns the exit code. Raises ConfigurationError if there is one already."""
    from inference.launcher.served_files import for_its_folder  # noqa: PLC0415 as above
    from inference.models.inspection.document import model_yaml  # noqa: PLC0415 as above

    _, (model,) = _read(options, settings)
    found = for_its_folder(model)
    if found is None:
        raise ConfigurationError(f"{options.models[0]} has a model.yaml already")
    _print(model_yaml(*found).rstrip("\n"))
    return 0


def _read(options: argparse.Namespace, settings: Settings) -> tuple[ServedFiles, list[NamedModel]]:
    from inference.launcher.served_files import ServedFiles  # noqa: PLC0415 as above

    # the processes that read the models find this code from any working directory
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(APPLICATION), os.environ.get("PYTHONPATH"))))
    files = ServedFiles(settings)
    choices = Choices(**{each.name: getattr(options, each.name) for each in fields(Choices)})
    return files, files.read_all(options.models, choices)


def _size(text: str) -> tuple[int, int]:
    found = _SIZE.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH in pixels, such as 224x224")
    return int(found[1]), int(found[2])


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
