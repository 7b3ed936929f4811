"""An application with keys, one of each role."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from support.keys import key_document, new_key

from inference.access import Role

READ_EXPIRES_AT = datetime(2999, 1, 2, 3, 4, 5, tzinfo=UTC)


@dataclass(frozen=True)
class Keys:
    """File with keys, and their texts."""

    file: Path
    predict: str
    read: str
    admin: str
    expired: str

    def of(self, role: Role) -> str:
        """The text of the key with this role."""
        text: str = getattr(self, role.value)
        return text


def write_keys(folder: Path) -> Keys:
    """A file with a key of each role, and one that has expired; each has an owner of its own. That of `read` expires once."""
    made = {role: new_key(f"{role}-owner", role) for role in Role}
    text, key = made[Role.READ]
    made[Role.READ] = (text, replace(key, expires_at=READ_EXPIRES_AT))
    expired_text, expired = new_key("late")
    expired = replace(expired, expires_at=datetime(2020, 1, 1, tzinfo=UTC))
    file = folder / "keys.json"
    file.write_text(json.dumps(key_document(*(key for _, key in made.values()), expired)), encoding="utf-8")
    return Keys(file, expired=expired_text, **{role.value: text for role, (text, _) in made.items()})


def bearer(text: str) -> dict[str, str]:
    """Headers with a key."""
    return {"Authorization": f"Bearer {text}"}
