"""Section of keys, which say who may call the service."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import model_validator

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
    #: file of the audit log; default: it is in the log of each process
    audit_file: Path | None = None

    @model_validator(mode="after")
    def _anonymous_has_no_keys(self) -> Self:
        if self.anonymous and (self.require_keys or self.keys_file is not None):
            key = "require_keys" if self.require_keys else "keys_file"
            raise ValueError(f"anonymous serves everybody without a key, and {key} asks for one; set only one of them")
        return self
