"""Secrets in files: `NAME_FILE` names a file with the value of the variable `NAME`, as Docker and Kubernetes mount secrets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from inference.errors import ConfigurationError
from inference.settings.documents import read_text

SUFFIX = "_FILE"


def value_or_content(variables: Mapping[str, str | None], name: str) -> str | None:
    """Return the value of the variable `name`, else the content of the file that `NAME_FILE` names; None if neither is set.

    One line end at the end of the file is no part of the secret.

    Raises:
        ConfigurationError: both are set, or the file cannot be read or is empty.
    """
    value, file = variables.get(name), variables.get(name + SUFFIX)
    if not file:
        return value
    if value:
        raise ConfigurationError(f"{name} and {name}{SUFFIX} are both set; remove one of them")
    try:
        content = read_text(Path(file), "the secret in")
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}{SUFFIX}: {error.detail}") from error
    secret = content.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise ConfigurationError(f"{name}{SUFFIX}: {file} is empty")
    return secret


def with_contents(variables: Mapping[str, str | None], names: Iterable[str]) -> dict[str, str | None]:
    """Replace `NAME_FILE` by `NAME` with the content of the file, for each of `names`, which are in capitals.

    Names in `variables` may have any case, those in the result are in small letters.

    Raises:
        ConfigurationError: as `value_or_content`.
    """
    found = {name.upper(): value for name, value in variables.items()}
    for name in names:
        if found.get(name + SUFFIX):
            found[name] = value_or_content(found, name)
            del found[name + SUFFIX]
    return {name.lower(): value for name, value in found.items()}
