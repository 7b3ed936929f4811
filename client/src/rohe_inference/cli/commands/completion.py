"""Shell completion."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from rohe_inference.cli.help import ExampleCommand

_SHELLS = ("bash", "zsh", "fish")


@click.command(
    cls=ExampleCommand,
    short_help="Print the script of shell completion.",
    examples=[
        (
            'eval "$(rohe-inference completion bash)"',
            "For this shell; in ~/.bashrc for each new one. The same for zsh in ~/.zshrc.",
        ),
        ("rohe-inference completion fish > ~/.config/fish/completions/rohe-inference.fish", "For fish."),
    ],
)
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands and options in a shell."""
    kind = get_completion_class(shell)
    root = ctx.find_root()
    if kind is None or root.info_name is None:  # the choice has no others
        raise click.UsageError(f"there is no completion for {shell}")
    click.echo(kind(root.command, {}, root.info_name, "_ROHE_INFERENCE_COMPLETE").source())
