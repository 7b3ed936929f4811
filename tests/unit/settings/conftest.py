"""Working directory of the tests of settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and neither settings nor ROHE in the environment."""
    for name in os.environ:
        if name.upper().startswith(("INFERENCE_", "ROHE")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path
