"""The login: address of a service and its API key, stored for this user alone."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import click

URL_VARIABLE = "ROHE_INFERENCE_URL"
API_KEY_VARIABLE = "ROHE_INFERENCE_API_KEY"
DEFAULT_URL = "http://127.0.0.1:30005"
_PROGRAM = "rohe-inference"


@dataclass(frozen=True)
class Login:
    """Address of a service, and the key to use there; None: without a key."""

    url: str
    api_key: str | None = None


def config_file() -> Path:
    """Return the path of the stored login: below `XDG_CONFIG_HOME`, default `~/.config`."""
    return _base("XDG_CONFIG_HOME", ".config") / _PROGRAM / "login.json"


def state_folder() -> Path:
    """Return the folder of journals: below `XDG_STATE_HOME`, default `~/.local/state`."""
    return _base("XDG_STATE_HOME", ".local/state") / _PROGRAM


def load_login() -> Login | None:
    """Return the stored login; None if there is none. Raises click.UsageError if it cannot be read."""
    path = config_file()
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return Login(str(document["url"]), document["api_key"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise click.UsageError(f"{path} cannot be read ({error}); run `{_PROGRAM} login` again, or delete the file") from error


def store_login(login: Login) -> Path:
    """Store the login with mode 0600, in one step: a reader gets the old file or the new one. Return its path."""
    path = config_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".login-")  # with mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(login), file)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    return path


def remove_login() -> bool:
    """Delete the stored login. Return whether there was one."""
    try:
        config_file().unlink()
    except FileNotFoundError:
        return False
    return True


def checked_url(text: str) -> str:
    """Return the address without a slash at its end. Raises click.UsageError if it is not one of a service."""
    url = text.strip().rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise click.UsageError(f"{text!r} is not the address of a service; one looks like {DEFAULT_URL} or https://HOST/PREFIX")
    return url


def resolve_login(url: str | None, api_key: str | None) -> Login:
    """Return the login to use: given values (options, environment), then the stored login, then the default address.

    A stored key is sent to its own address alone.
    """
    if url is not None and api_key is not None:
        return Login(checked_url(url), api_key or None)
    stored = load_login()
    if url is None:
        found = stored or Login(DEFAULT_URL)
        return found if api_key is None else Login(found.url, api_key or None)
    url = checked_url(url)
    return stored if stored is not None and stored.url == url else Login(url)


def _base(variable: str, default: str, environment: Mapping[str, str] = os.environ) -> Path:
    path = Path(environment.get(variable, ""))
    return path if path.is_absolute() else Path.home() / default  # relative paths are ignored, as the XDG specification says
