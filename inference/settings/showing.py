"""Settings and their mistakes as text, secrets masked."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from inference.settings.schema import Settings

_MASK = "**********"


def effective(settings: Settings) -> dict[str, Any]:
    """The settings as plain data, secrets masked."""
    plain: dict[str, Any] = _masked(settings.model_dump(mode="python"))
    return plain


def _masked(value: Any) -> Any:
    match value:
        case dict():
            return {key: _masked(item) for key, item in value.items()}
        case list() | tuple():
            return [_masked(item) for item in value]
        case SecretStr():
            return str(value)
        case Path():
            return str(value)
        case str():
            # Up to the last @: a password that should have been percent-encoded may hold any character.
            hidden = re.sub(r"(://(?:[^:/@?]*:)?).*@", rf"\1{_MASK}@", value)
            return re.sub(r"([?&]\w*(?:password|secret|token)\w*=)[^&]*", rf"\1{_MASK}", hidden)
    return value


def explain(problem: Any) -> str:
    """One of pydantic's errors as `key: what is wrong`."""
    key = ".".join(map(str, problem["loc"])) or "settings"
    if problem["type"] != "extra_forbidden":
        # A section is not shown: its secrets are plain text as long as they are no settings yet.
        got = "" if isinstance(problem["input"], dict) else f" (got {_masked(problem['input'])!r})"
        return f"{key}: {problem['msg'].removeprefix('Value error, ')}{got}"
    near = difflib.get_close_matches(str(problem["loc"][-1]), _keys_beside(problem["loc"]), n=1)
    return f"{key}: unknown key" + (f"; did you mean {near[0]}?" if near else "")


def _keys_beside(location: Iterable[str | int]) -> list[str]:
    fields = Settings.model_fields
    for part in list(location)[:-1]:
        section = fields[str(part)].annotation if str(part) in fields else None
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            return []
        fields = section.model_fields
    return list(fields)
