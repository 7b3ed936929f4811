"""One running service, shared by the tests that leave it as they found it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.service import Service


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The default model and the digits, on the embedded default."""
    folder: Path = tmp_path_factory.mktemp("service")
    settings = {"models": ["models/efficientnet-lite0", "models/digits"], "sample_image": "samples/chelsea.jpg"}
    running = Service(folder, settings)
    try:
        running.start()
        yield running
    finally:
        running.end()
