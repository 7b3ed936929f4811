"""Renamed settings: the old key is still read, with a warning."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

logger = logging.getLogger(__name__)

#: New key by old key; both are in the same section.
RENAMED = {
    "served_model": "default_model",
    "task_store.lost_grace_s": "task_store.requeue_lost_after_s",
    "relay.claim_idle_s": "relay.reclaim_after_s",
    "uploads.inline_quiet_max_bytes": "uploads.inline_max_bytes",
}


def with_new_names(document: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the old keys of settings, nested as in a file, by the new ones; if both are set, the new key's value counts."""
    found = {name: dict(value) if isinstance(value, Mapping) else value for name, value in document.items()}
    for old, new in RENAMED.items():
        section, _, old_name = old.rpartition(".")
        place = found.get(section) if section else found
        if isinstance(place, dict) and old_name in place:
            logger.warning("%s is now %s: rename it; if both are set, %s counts", old, new, new)
            value = place.pop(old_name)
            place.setdefault(new.rpartition(".")[2], value)
    return found


def with_new_variables(variables: Mapping[str, str | None], prefix: str) -> dict[str, str | None]:
    """Keep the variables that begin with `prefix`, with the new names of keys outside of sections."""
    ours = {name.removeprefix(prefix): value for name, value in variables.items() if name.startswith(prefix)}
    return {prefix + name: value for name, value in with_new_names(ours).items()}
