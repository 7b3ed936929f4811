"""A service whose leases are short, so that what a dead process held is soon another's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.service import Service

SETTINGS = {
    "models": ["models/digits"],
    "task_store": {"lease_s": 2, "lost_grace_s": 1},
    "worker": {"max_batch_size": 8},
    "relay": {"claim_idle_s": 2, "max_backoff_s": 1},
}


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("faults"), SETTINGS)
    try:
        running.start()
        yield running
    finally:
        running.end()
