"""Masking of the secrets in settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import SecretStr

MASK = "**********"


def shown_value(value: Any) -> Any:
    """Return `value` as plain data, secrets masked."""
    match value:
        case dict():
            return {key: shown_value(item) for key, item in value.items()}
        case list() | tuple():
            return [shown_value(item) for item in value]
        case SecretStr():
            return str(value)
        case Path():
            return str(value)
        case str():
            # Up to the last @: a password that is not percent-encoded may contain any character.
            hidden = re.sub(r"(://(?:[^:/@?]*:)?|:).*@", rf"\1{MASK}@", value, count=1, flags=re.DOTALL)
            return re.sub(r"([?&]\w*(?:password|secret|token)\w*=)[^&]*", rf"\1{MASK}", hidden)
    return value
