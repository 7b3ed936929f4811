"""Everything here needs the real servers, or the package index."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.services)


@pytest.fixture
def own_name() -> str:
    """Name for a bucket, topic or collection of one test alone."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture(autouse=True)
def clean_up(leave_no_sockets: None) -> None:
    """After each test here."""
