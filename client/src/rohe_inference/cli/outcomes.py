"""Outcome of one image or task, as commands print it and journals keep it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """End of an image: members of a batch's item in docs/http.md."""

    #: as of a task; `refused` if there is no task, `unreadable` if the file could not be read, `queued` if it was only submitted
    status: str
    task_id: str | None = None
    #: name, version, digest
    model: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    #: code, detail, and the other members of the problem
    error: dict[str, Any] | None = None

    @property
    def has_failed(self) -> bool:
        """Whether there is an error in place of a result."""
        return self.error is not None

    def to_dict(self) -> dict[str, Any]:
        """Return the members as JSON."""
        return asdict(self)


def json_line(document: Mapping[str, Any]) -> str:
    """Return compact JSON; names that are not valid Unicode are escaped."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(document, separators=(",", ":"))
    return text
