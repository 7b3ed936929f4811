"""Section of keys: who may call the service."""

from __future__ import annotations

from pathlib import Path

from inference.settings.value_checks import Section


class SecuritySettings(Section):
    """Keys of the API."""

    #: file with keys, read again when it changes; see docs/security.md
    keys_file: Path | None = None
    #: ask for a key on loopback too
    require_keys: bool = False
    #: serve everybody without a key, at any address
    anonymous: bool = False
    #: serve /metrics and /status without a key
    open_metrics: bool = False
