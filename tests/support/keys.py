"""Keys for tests."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from inference.access import Caller, Limits, Role
from inference.keys.entries import Key, KeyEntry
from inference.keys.key_text import digest_of, id_of, new_key_text


def key_of(
    text: str,
    owner: str = "ada",
    role: Role = Role.PREDICT,
    *,
    limits: Limits = Limits(),  # noqa: B008 it cannot change
    expires_at: datetime | None = None,
) -> Key:
    """The key with this text, as file and record store hold it."""
    return Key(Caller(owner, role, id_of(text), limits), digest_of(text), expires_at=expires_at)


def new_key(owner: str = "ada", role: Role = Role.PREDICT) -> tuple[str, Key]:
    """The text of a new key, and the key."""
    text = new_key_text()
    return text, key_of(text, owner, role)


def key_document(*keys: Key) -> Mapping[str, Any]:
    """Content of a file with these keys."""
    return {"keys": {key.key_id: KeyEntry.of(key).model_dump(mode="json", exclude_none=True) for key in keys}}
