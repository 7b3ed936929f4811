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
#: New name of a section by the old one.
RENAMED_SECTIONS = {"minio": "s3"}
#: New value of a key by the key and its old value.
RENAMED_VALUES = {("uploads.store", "minio"): "s3"}

_NESTED = "__"


def with_new_names(document: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the old keys of settings, nested as in a file, by the new ones; if both are set, the new key's value counts."""
    found = {name: dict(value) if isinstance(value, Mapping) else value for name, value in document.items()}
    for old, new in RENAMED_SECTIONS.items():
        if old in found:
            _warn(old, new)
            former = found.pop(old)
            latter = found.setdefault(new, former)
            if isinstance(former, dict) and isinstance(latter, dict):
                found[new] = former | latter
    for old, new in RENAMED.items():
        place, old_name = _place(found, old)
        if isinstance(place, dict) and old_name in place:
            _warn(old, new)
            value = place.pop(old_name)
            place.setdefault(new.rpartition(".")[2], value)
    for (key, old), new in RENAMED_VALUES.items():
        place, name = _place(found, key)
        if isinstance(place, dict) and place.get(name) == old:
            logger.warning("%s: %s is now %s: rename it", key, old, new)
            place[name] = new
    return found


def _place(document: dict[str, Any], key: str) -> tuple[Any, str]:
    """Return the part of a document that has a key, and the key's name there."""
    section, _, name = key.rpartition(".")
    return (document.get(section) if section else document), name


def with_new_variables(variables: Mapping[str, str | None], prefix: str) -> dict[str, str | None]:
    """Keep the variables that begin with `prefix`, with the new names of sections and of keys outside of sections."""
    ours = {name.removeprefix(prefix): value for name, value in variables.items() if name.startswith(prefix)}
    for old, new in RENAMED_SECTIONS.items():
        nested = [name for name in ours if name.startswith(old + _NESTED)]
        if nested:
            _warn(old, new)
        for name in nested:
            ours.setdefault(new + name.removeprefix(old), ours.pop(name))
    return {prefix + name: value for name, value in with_new_names(ours).items()}


def _warn(old: str, new: str) -> None:
    logger.warning("%s is now %s: rename it; if both are set, %s counts", old, new, new)
