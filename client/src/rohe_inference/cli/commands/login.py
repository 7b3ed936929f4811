"""Store and remove the address of a service and its API key."""

from __future__ import annotations

import sys
from urllib.parse import urlsplit

import click

from rohe_inference import CallerKey
from rohe_inference.cli.config import (
    API_KEY_VARIABLE,
    DEFAULT_URL,
    URL_VARIABLE,
    Login,
    checked_url,
    config_file,
    load_login,
    remove_login,
    store_login,
)
from rohe_inference.cli.connection import open_client
from rohe_inference.cli.help import ExampleCommand
from rohe_inference.cli.photos import STDIN
from rohe_inference.cli.terminal import printable


@click.command(
    cls=ExampleCommand,
    examples=[
        ("rohe-inference login", "Ask for the address and the key; the key is not shown."),
        ("rohe-inference login --url https://inference.example.org --api-key - < key.txt", "Without questions, for scripts."),
        ("rohe-inference login --url http://127.0.0.1:30005 --no-api-key", "A service without keys."),
    ],
)
@click.option("--url", metavar="URL", envvar=URL_VARIABLE, show_envvar=True, help="Address of the service; default: a question.")
@click.option(
    "--api-key",
    metavar="KEY",
    envvar=API_KEY_VARIABLE,
    show_envvar=True,
    help="API key; `-` reads it from the first line of stdin. Default: a question.",
)
@click.option("--no-api-key", is_flag=True, help="The service has no keys: do not ask for one.")
@click.option("--no-check", is_flag=True, help="Store it even if the service does not answer.")
def login(url: str | None, api_key: str | None, *, no_api_key: bool, no_check: bool) -> None:
    """Store the address of a service and its API key.

    The service is asked for the key's owner and role first, so that a wrong address or key is not stored.

    They are stored in $XDG_CONFIG_HOME/rohe-inference/login.json (default: ~/.config), which only you can read. Other commands
    use them unless --url, --api-key or their variables say otherwise; the key is sent to this address alone.
    """
    if no_api_key and api_key:
        raise click.UsageError("give --api-key or --no-api-key, not both")
    if url is None:
        stored = load_login()
        url = click.prompt("Address of the service", default=stored.url if stored else DEFAULT_URL, err=True)
    if api_key == STDIN:
        api_key = sys.stdin.buffer.readline().decode().strip()
    elif api_key is None and not no_api_key:
        api_key = click.prompt("API key (empty: none)", default="", hide_input=True, show_default=False, err=True).strip()
    found = Login(checked_url(url), api_key or None)
    if not no_check:
        with open_client(found) as client:
            click.echo(_sentence(client.key(), found))
    path = store_login(found)
    click.echo(f"stored in {path}")
    if found.api_key and not _is_private(found.url):
        click.echo("warning: http:// sends the key unencrypted; use https:// outside a network that you trust", err=True)


@click.command(cls=ExampleCommand, examples=[("rohe-inference logout", "Forget the address and the key.")])
def logout() -> None:
    """Delete the stored address and API key."""
    click.echo(f"deleted {config_file()}" if remove_login() else "there was no stored login")


def _sentence(key: CallerKey, login: Login) -> str:
    """Return the service's description of the key."""
    if key.key_id is None:
        return "the service has no keys" + ("; it ignores this one" if login.api_key else "")
    expiry = f", until {key.expires_at:%Y-%m-%d %H:%M} UTC" if key.expires_at else ""
    return f"the key {key.key_id} belongs to {printable(key.owner)} and has the role {key.role}{expiry}"


def _is_private(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in {"127.0.0.1", "::1", "localhost"}
