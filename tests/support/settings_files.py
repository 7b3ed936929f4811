"""Settings of a file that a test writes into an empty working directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from inference.errors import ConfigurationError
from inference.settings import Settings, load_settings


def load(document: Any = None, overrides: dict[str, Any] | None = None) -> Settings:
    """Settings of a file with this content (text, or an object for YAML)."""
    if document is None:
        return load_settings(None, overrides)
    file = Path("config.yaml")
    file.write_text(document if isinstance(document, str) else yaml.safe_dump(document), encoding="utf-8")
    return load_settings(file, overrides)


def complaint(document: Any = None, overrides: dict[str, Any] | None = None) -> str:
    """The error that is said of it."""
    with pytest.raises(ConfigurationError) as caught:
        load(document, overrides)
    return caught.value.detail
