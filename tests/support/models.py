"""Models for tests: the folders of this repository, or of a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.model_cache import MODEL_CACHE

from inference.models.description_file import read_document
from inference.models.files import ModelFiles
from inference.models.registry import ModelRegistry
from inference.models.spec import ModelSpec
from inference.settings import ModelFileSettings, Settings


def spec_of(folder: Path, **description: Any) -> ModelSpec:
    """The model of this description, whose paths are relative to `folder`."""
    files = ModelFiles(Settings(model_files=ModelFileSettings(allowed_folders=(folder,), cache_dir=MODEL_CACHE)))
    (described,) = read_document(description, folder=folder, origin="test")
    return files.resolve(described)


def load_spec(folder: Path) -> ModelSpec:
    """The model that a folder describes, as the service reads it."""
    return ModelRegistry.load(Settings(models=(folder,), model_files=ModelFileSettings(cache_dir=MODEL_CACHE))).get()
