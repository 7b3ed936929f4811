"""JSON documents that processes of several versions exchange through Redis."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


def known_members(kind: type, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return those members of a document that the dataclass `kind` has: a newer version may have added others."""
    return {field.name: document[field.name] for field in dataclasses.fields(kind) if field.name in document}
