"""Tables of all commands' options in Markdown: `python -m rohe_inference.cli.reference` prints those of docs/command-line.md."""

from __future__ import annotations

from collections.abc import Iterator

import click

from rohe_inference.cli.app import program

#: parameters of nearly all commands, which the page describes once
_COMMON = {"login", "api_key"}


def option_tables() -> dict[str, str]:
    """Return a table of options for each command, by its name; an empty text for one without options."""
    return {name: "\n".join(_rows(command)) for name, command in program.commands.items()}


def _rows(command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=command.name)
    options = [option for option in command.params if isinstance(option, click.Option)]
    if command.name != "login":
        options = [option for option in options if option.name not in _COMMON]
    if options:
        yield "| option | |"
        yield "| --- | --- |"
    for option in options:
        names = ", ".join(f"`{name}`" for name in sorted(option.opts, key=len))
        metavar = "" if option.is_flag else f" `{option.make_metavar(context)}`"
        default = f" Default: {option.default}." if option.show_default else ""
        variable = f" Variable: `{option.envvar}`." if option.envvar else ""
        text = f"{option.help}{default}{variable}".replace("|", "\\|")
        yield f"| {names}{metavar} | {text} |"


if __name__ == "__main__":
    for command_name, text in option_tables().items():
        click.echo(f"## {command_name}\n\n{text}\n")
