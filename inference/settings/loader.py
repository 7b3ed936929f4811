"""Reading of `Settings` from a file, the environment and the command line; every error names its key."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsError,
)

from inference.errors import ConfigurationError
from inference.settings.documents import read_mapping, read_text
from inference.settings.installation import APPLICATION, IS_WHEEL
from inference.settings.masked_text import explain
from inference.settings.renamed_keys import with_new_names, with_new_variables
from inference.settings.rohe.forms import Translation, translate
from inference.settings.schema import Settings
from inference.settings.secret_files import value_or_content, with_contents
from inference.settings.variables import CONFIG_VARIABLE, is_port_link, secret_variables, unknown_variables

DEFAULT_CONFIG = Path("configurations/local.yaml")
#: Variables that name the checkout of ROHE, in its code and in its README.
ROHE_VARIABLES = ("ROHE_PATH", "ROHE")

_ENV_FILE = ".env"
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def config_path(argument: Path | None = None) -> Path | None:
    """Return the configuration file: the argument, else `INFERENCE_CONFIG` (of the environment, else of `.env`), else
    configurations/local.yaml if it exists, else that of the wheel. Raises ConfigurationError if `.env` cannot be read."""
    if argument is not None:
        return argument
    if named := os.environ.get(CONFIG_VARIABLE) or _env_file().get(CONFIG_VARIABLE):
        return Path(named)
    # not is_file(): a file without read permission must cause an error, not the use of the defaults
    if os.path.lexists(DEFAULT_CONFIG) or _is_hidden(DEFAULT_CONFIG.parent):
        return DEFAULT_CONFIG
    return APPLICATION / DEFAULT_CONFIG if IS_WHEEL else None


def _is_hidden(folder: Path) -> bool:
    """Whether the folder exists and the user has no permission to access files in it."""
    return os.path.isdir(folder) and not os.access(folder, os.X_OK)  # noqa: PTH112 as above


def load_settings(file: Path | None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read `file` (None: the defaults), the environment, then `overrides` (nested like the file).

    Raises:
        ConfigurationError: one line for each wrong key.
    """
    translation = read_translated(file) if file else Translation({})

    class FromFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 pydantic passes it by name
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 pydantic passes it by name
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 pydantic passes it by name
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            document = InitSettingsSource(settings_cls, with_new_names(translation.document))
            return init_settings, _Environment(settings_cls), _EnvFileSource(settings_cls), document

    problems = _unknown_variables()
    try:
        settings = FromFile(**with_new_names(overrides or {}))
    except ValidationError as error:
        problems += [explain(problem, rohe_keys=translation.rohe_keys) for problem in error.errors()]
        raise ConfigurationError("\n".join(problems)) from error
    except SettingsError as error:
        field = re.search(r'field "(\w+)"', str(error))
        key = field.group(1) if field else "environment"
        problems.append(
            f'{key}: the value in the environment is not JSON: a list is \'["A", "B"]\', a section \'{{"KEY": VALUE}}\''
        )
        raise ConfigurationError("\n".join(problems), field=key) from error
    if problems:
        raise ConfigurationError("\n".join(problems))
    return settings


class _Environment(EnvSettingsSource):
    """Environment variables, those of old keys too, and the files with secrets that they name."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        ours = with_new_variables(super()._load_env_vars(), self.env_prefix.lower())
        return with_contents(ours, secret_variables())

    def __call__(self) -> dict[str, Any]:
        return with_new_names(super().__call__())


class _EnvFileSource(_Environment, DotEnvSettingsSource):
    """Settings of `.env`, without the variables of other programs in it."""

    def _read_env_files(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in _env_file().items() if value}

    def __call__(self) -> dict[str, Any]:
        return {key: value for key, value in super().__call__().items() if key in Settings.model_fields}


def read_translated(file: Path) -> Translation:
    """Read a YAML or JSON file, and translate ROHE's keys to ours. Raises ConfigurationError."""
    variables = _variables()
    rohe = next(filter(None, (variables.get(name) for name in ROHE_VARIABLES)), None)
    missing: list[str] = []
    try:
        document = _with_application_paths(file, _filled(read_mapping(file), "", variables, missing))
    except RecursionError:
        raise ConfigurationError(f"{file}: an alias refers to a value that contains the alias") from None
    if missing:
        raise ConfigurationError("\n".join(f"{file}: {problem}" for problem in missing))
    return translate(document, rohe=Path(rohe) if rohe else None)


def _with_application_paths(file: Path, document: dict[str, Any]) -> dict[str, Any]:
    """Make the paths in a wheel's own configuration absolute: they name files of the wheel, not of the working directory."""
    if not IS_WHEEL or file.resolve() != APPLICATION / DEFAULT_CONFIG:
        return document
    models = [str(APPLICATION / folder) for folder in document["models"]]
    return document | {"models": models, "sample_image": str(APPLICATION / document["sample_image"])}


def _variables() -> dict[str, str]:
    """Return the variables of `.env`, which ROHE and Docker Compose read too, and of the environment, which takes precedence.

    Variables such as `MONGODB_PORT=tcp://10.0.0.1:27017`, which Kubernetes sets for a Service, are left out: a file that contains
    `${MONGODB_PORT}` needs a number.
    """
    environment = {name: value for name, value in os.environ.items() if not is_port_link(name, value)}
    return _env_file() | environment


def _env_file() -> dict[str, str]:
    """Return the variables of `.env` in the working directory. Raises ConfigurationError.

    Anything but a file is ignored: a folder of this name belongs to another program, and reading a pipe could block for ever.
    """
    file = Path(_ENV_FILE)
    if not os.path.isfile(file):  # noqa: PTH113 Path.is_file raises if a folder may not be read
        return {}
    text = read_text(file, "the variables in")
    for binding in parse_stream(StringIO(text)):
        if binding.error:
            raise ConfigurationError(f"{file}: line {binding.original.line} is not NAME=VALUE; is a quote unclosed?")
    found: Mapping[str, str | None] = dotenv_values(stream=StringIO(text))
    return {name: value for name, value in found.items() if value is not None}


def _unknown_variables() -> list[str]:
    return [*unknown_variables(os.environ), *(f"{_ENV_FILE}: {problem}" for problem in unknown_variables(_env_file()))]


def _filled(value: Any, key: str, variables: Mapping[str, str], missing: list[str]) -> Any:
    """Replace `${NAME}` and `${NAME:-default}` in texts by the values of `variables`, so that the file needs no secrets.

    If `variables` has NAME_FILE instead, the content of that file is the value.

    Args:
        missing: receives a sentence for each variable that is not set.
    """
    match value:
        case dict():
            return {name: _filled(item, f"{key}.{name}".lstrip("."), variables, missing) for name, item in value.items()}
        case list():
            return [_filled(item, key, variables, missing) for item in value]
        case str():
            return _VARIABLE.sub(lambda found: _variable(found, key, variables, missing), value)
    return value


def _variable(found: re.Match[str], key: str, variables: Mapping[str, str], missing: list[str]) -> str:
    name, default = found.group(1, 2)
    value = value_or_content(variables, name)
    value = default if value is None else value
    if value is None:
        missing.append(f"{key} needs the environment variable {name}")
        return ""
    return value
