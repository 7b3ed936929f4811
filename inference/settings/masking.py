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
            # Up to the last @: a password that is not percent-encoded may contain any character. The audit log has texts of
            # clients, so no pattern may take time that grows with the square of the length.
            end = value.rfind("@") + 1
            login = re.sub(r"(://(?:[^:/@?]*:)?|:).*", rf"\1{MASK}@", value[:end], count=1, flags=re.DOTALL)
            return re.sub(r"([?&](?=\w*(?:password|secret|token))\w*=)[^&]*", rf"\1{MASK}", login + value[end:])
    return value
