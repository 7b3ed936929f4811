from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with one small model in every form."""
    from model_forms import save_all_forms  # noqa: PLC0415 other tests of this folder need no TensorFlow

    folder = tmp_path_factory.mktemp("models")
    save_all_forms(folder)
    return folder
