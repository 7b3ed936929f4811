"""From a file, the environment and the command line to `Settings`; every error names its key."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from dotenv import dotenv_values
from pydantic import ValidationError
from pydantic_settings import BaseSettings, DotEnvSettingsSource, InitSettingsSource, PydanticBaseSettingsSource, SettingsError

from inference.errors import ConfigurationError
from inference.settings.schema import Settings
from inference.settings.seed_forms import Translation, translate
from inference.settings.showing import explain

#: Environment variable that names the configuration file.
CONFIG_VARIABLE = "INFERENCE_CONFIG"
DEFAULT_CONFIG = Path("configurations/local.yaml")
#: Variables that name the checkout of ROHE: its code's, its README's.
ROHE_VARIABLES = ("ROHE_PATH", "ROHE")

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def config_path(argument: Path | None = None) -> Path | None:
    """The configuration file: the argument, else `INFERENCE_CONFIG`, else configurations/local.yaml where it exists."""
    named = argument or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    if named is None and DEFAULT_CONFIG.is_file():
        return DEFAULT_CONFIG
    return named


def load_settings(file: Path | None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read `file` (none: defaults), the environment, then `overrides` (nested like the file).

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
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 pydantic passes it by name
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 pydantic passes it by name
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            env_file = _OurOfEnvFile(settings_cls)
            return init_settings, env_settings, env_file, InitSettingsSource(settings_cls, translation.document)

    try:
        return FromFile(**(overrides or {}))
    except ValidationError as error:
        problems = (explain(problem, seed_keys=translation.seed_keys) for problem in error.errors())
        raise ConfigurationError("\n".join(problems)) from error
    except SettingsError as error:
        field = re.search(r'field "(\w+)"', str(error))
        key = field.group(1) if field else "environment"
        raise ConfigurationError(f"{key}: what the environment says is not JSON", field=key) from error


class _OurOfEnvFile(DotEnvSettingsSource):
    """`.env` may hold what other programs need; what begins as ours does must be a setting."""

    def __call__(self) -> dict[str, Any]:
        found = super().__call__()
        mistyped = [key.upper() for key in found if key.startswith("inference_") and key.upper() != CONFIG_VARIABLE]
        if mistyped:
            raise ConfigurationError(f".env: {', '.join(mistyped)}: unknown setting", field=mistyped[0])
        return {key: value for key, value in found.items() if key in Settings.model_fields}


def read_translated(file: Path) -> Translation:
    """What a YAML or JSON file says, in our keys. Raises ConfigurationError."""
    variables = _variables()
    rohe = next(filter(None, (variables.get(name) for name in ROHE_VARIABLES)), None)
    return translate(_filled(_read_mapping(file), file, "", variables), rohe=Path(rohe) if rohe else None)


def _variables() -> dict[str, str]:
    """The environment; below it `.env`, which the seed and Docker Compose read too."""
    of_file = {name: value for name, value in dotenv_values(".env").items() if value is not None}
    return of_file | dict(os.environ)


def _read_mapping(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
        # JSON is YAML but for tabs and surrogate pairs.
        document = json.loads(text) if file.suffix.lower() == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise ConfigurationError(f"cannot read the configuration {file}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigurationError(f"{file} is neither YAML nor JSON: {' '.join(str(error).split())}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigurationError(f"{file} must be a mapping of settings, not {type(document).__name__}")
    strange = next((key for key in document if not isinstance(key, str)), None)
    if strange is not None:
        raise ConfigurationError(f"{file}: the key {strange!r} is not a text; put it into quotes")
    return document


def _filled(value: Any, file: Path, key: str, variables: Mapping[str, str]) -> Any:
    """`${NAME}` and `${NAME:-default}` in texts become what `variables` has, so that no secret lies in the file."""
    match value:
        case dict():
            return {name: _filled(item, file, f"{key}.{name}".lstrip("."), variables) for name, item in value.items()}
        case list():
            return [_filled(item, file, key, variables) for item in value]
        case str():
            return _VARIABLE.sub(lambda found: _variable(found, file, key, variables), value)
    return value


def _variable(found: re.Match[str], file: Path, key: str, variables: Mapping[str, str]) -> str:
    name, default = found.group(1, 2)
    value = variables.get(name, default)
    if value is None:
        raise ConfigurationError(f"{file}: {key} needs the environment variable {name}", field=key)
    return value
