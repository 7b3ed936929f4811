"""Commands whose help has examples, and the options that many commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from rohe_inference.cli.config import API_KEY_VARIABLE, URL_VARIABLE, Login, resolve_login
from rohe_inference.cli.photos import STDIN

Function = TypeVar("Function", bound=Callable[..., Any])


class ExampleCommand(click.Command):
    """A command with a section of examples at the end of its help."""

    def __init__(self, *args: Any, examples: Sequence[tuple[str, str]] = (), **options: Any) -> None:
        """`examples`: command line and explanation of each."""
        super().__init__(*args, **options)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for line, explanation in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
                    with formatter.indentation():
                        formatter.write_text(explanation)


def service_options(function: Function) -> Function:
    """Add --url and --api-key; the command gets `login`."""

    def login(ctx: click.Context, _: click.Parameter, url: str | None) -> Login:
        api_key: str | None = ctx.params.pop("api_key", None)
        if api_key == STDIN:
            api_key = sys.stdin.buffer.readline().decode().strip()
        return resolve_login(url, api_key)

    url = click.option(
        "--url",
        "login",
        metavar="URL",
        envvar=URL_VARIABLE,
        show_envvar=True,
        callback=login,
        help="Address of the service; default: that of `login`, else http://127.0.0.1:30005.",
    )
    key = click.option(
        "--api-key",
        metavar="KEY",
        envvar=API_KEY_VARIABLE,
        show_envvar=True,
        is_eager=True,
        help="API key; `-` reads it from the first line of stdin. Other users may see it: prefer the variable, or `login`.",
    )
    return url(key(function))


def json_option(function: Function) -> Function:
    """Add --json; the command gets `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="JSON Lines: what the service answers, one object in each line.")(
        function
    )
