"""The program: its commands, its help, and the exit code for each error."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from rohe_inference._version import __version__
from rohe_inference.cli.commands.completion import completion
from rohe_inference.cli.commands.login import login, logout
from rohe_inference.cli.commands.predict import predict, submit
from rohe_inference.cli.commands.service import models, status
from rohe_inference.cli.commands.tasks import cancel, erase, events, replay, tasks, wait
from rohe_inference.cli.commands.top import top
from rohe_inference.cli.exits import ExitCode, error_of

PROGRAM = "rohe-inference"

_EPILOG = """\b
Environment:
  ROHE_INFERENCE_URL      address of the service
  ROHE_INFERENCE_API_KEY  API key
  NO_COLOR                no colours; there are none in pipes and files either

\b
Exit codes:
  0  everything succeeded
  1  some images or tasks failed
  2  the command is wrong
  3  the service is not reachable, or down
  4  the API key is missing, wrong, or not allowed to do this
  5  the service refused the request
  6  wait: some tasks have not ended in time
  130 interrupted (Ctrl-C); 141 the reader of the output has ended; 70 an error of this program
"""


class _Program(click.Group):
    """The group of all commands: errors of the service become sentences and exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.commands)  # in the order in which they were added, most used first

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        try:
            return super().make_context(*arguments, **options)
        except BrokenPipeError as error:  # of --help and --version
            raise _closed_pipe() from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            code = super().invoke(ctx)
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except BrokenPipeError as error:
            raise _closed_pipe() from error
        except Exception as error:
            raise error_of(error) from error
        ctx.exit(code or ExitCode.OK)


@click.group(
    cls=_Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=_EPILOG,
    no_args_is_help=True,
)
@click.version_option(__version__, prog_name=PROGRAM)
def program() -> None:
    """Classify images with a ROHE image inference service, and look at its tasks, models and queues."""


for _command in (
    predict, submit, wait, status, tasks, cancel, replay, erase, events, models, top, login, logout, completion,
):  # fmt: skip
    program.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program, and exit with a code of `ExitCode`."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the program, and return its exit code."""
    try:
        code: int = program.main(arguments, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        return _closed_pipe().exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    return code


def _closed_pipe() -> click.exceptions.Exit:
    """Discard the rest of the output, which Python would flush at its end; return the exit, in place of click's with 1."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return click.exceptions.Exit(ExitCode.CLOSED_PIPE)
