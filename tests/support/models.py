"""Models for tests: the folders of this repository, or of a test."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Any

from inference.models.describing import read_document
from inference.models.files import ModelFiles
from inference.models.registry import ModelRegistry
from inference.models.spec import ModelSpec
from inference.settings import ModelFileSettings, Settings

#: of this run of the tests, so that a model is converted once, and not from an earlier run
_CACHE = Path(tempfile.mkdtemp(prefix="inference-test-models-"))
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)


def spec_of(folder: Path, **description: Any) -> ModelSpec:
    """The model of this description, whose paths are relative to `folder`."""
    files = ModelFiles(Settings(model_files=ModelFileSettings(allowed_folders=(folder,), cache_dir=_CACHE)))
    (described,) = read_document(description, folder=folder, origin="test")
    return files.resolve(described)


def load_spec(folder: Path) -> ModelSpec:
    """The model that a folder describes, as the service reads it."""
    return ModelRegistry.load(Settings(models=(folder,), model_files=ModelFileSettings(cache_dir=_CACHE))).get()
