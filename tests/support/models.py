"""Models for tests: the folders of this repository, or of a test."""

from __future__ import annotations

from pathlib import Path

from inference.models.registry import ModelRegistry
from inference.models.spec import ModelSpec
from inference.settings import Settings


def load_spec(folder: Path) -> ModelSpec:
    """The model that a folder describes, as the service reads it."""
    return ModelRegistry.load(Settings(models=(folder,))).get()
