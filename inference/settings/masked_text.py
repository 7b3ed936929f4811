"""Settings, and the errors in them, as text with masked secrets."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel

from inference.errors import shown
from inference.settings.masking import MASK, shown_value
from inference.settings.rohe.sections import SECTIONS, SHARED
from inference.settings.schema import Settings

#: Keys with values that are never shown, not even wrong ones.
_SECRETS = (["access_key"], ["secret_key"], ["secret"], ["password"], ["url"], ["sha256"], ["headers"])


def masked_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings as plain data, secrets masked."""
    plain: dict[str, Any] = shown_value(settings.model_dump(mode="python"))
    return plain


def _without_credentials(wrong: Any) -> Any:
    """Mask the text before an @ in a value, or in each item of a list: in a malformed value a password may be at any place."""
    if isinstance(wrong, list):
        return [_without_credentials(item) for item in wrong]
    return re.sub(r".*@", f"{MASK}@", wrong, flags=re.DOTALL) if isinstance(wrong, str) else wrong


def explain(
    problem: Any, *, section: type[BaseModel] = Settings, prefix: str = "", rohe_keys: Mapping[str, str] | None = None
) -> str:
    """Return one of pydantic's errors as `key: problem`.

    Args:
        section: the model that validated the document.
        prefix: key of `section` in the file.
        rohe_keys: by setting, the key of the file that it was translated from.
    """
    location = [str(part) for part in problem["loc"] if part != "[key]"]
    key = ".".join(filter(None, (prefix, *location))) or "settings"
    key = (rohe_keys or {}).get(key, key)
    if problem["type"] != "extra_forbidden":
        # A section is not shown: its secrets are plain text until the settings are built.
        hidden = isinstance(problem["input"], dict) or location[-1:] in _SECRETS
        got = "" if hidden else f" (got {shown(_without_credentials(shown_value(problem['input'])))})"
        return f"{key}: {_words(problem['msg'])}{got}"
    near = difflib.get_close_matches(location[-1], _known_keys(location, section), n=1)
    return f"{key}: unknown key" + (f"; did you mean {near[0]}?" if near else "")


def _words(message: str) -> str:
    """Return pydantic's message in the terms of a configuration file."""
    words = message.removeprefix("Value error, ").replace("a valid tuple", "a list")
    return re.sub(r"is not a valid path for <.*>", "should be a path", words)


def _known_keys(location: list[str], section: type[BaseModel]) -> list[str]:
    """Return the keys that are valid at the place of an unknown key."""
    place: type[BaseModel] | None = section
    for part in location[:-1]:
        field = place.model_fields.get(part) if place else None
        # a part that is not a field is a name in a dictionary of sections
        place = _section_in(field.annotation) if field else place
    keys = list(place.model_fields) if place else []
    if section is Settings:
        rohe_sections = SECTIONS if len(location) == 1 else SHARED[location[0]].model_fields if location[0] in SHARED else ()
        keys += rohe_sections
    return keys


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section in an annotation: `Section`, `Section | None` or `dict[str, Section]`."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return next(filter(None, map(_section_in, get_args(annotation))), None)
