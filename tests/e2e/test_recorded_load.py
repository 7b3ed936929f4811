"""A load is recorded from a running service, and has each task that its clients sent."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.service import Service

from bench.client_mix import BATCH, Clients
from bench.load_files import read_load
from bench.record_load import main

pytestmark = pytest.mark.process


def test_every_task_of_the_clients_is_in_the_load(
    service: Service, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = datetime.now(UTC)
    clients = Clients(service.url, (repository / "samples/digit_7.png").read_bytes(), model="digits", faster=100)
    clients.run()
    assert clients.answers.keys() == {200, 202}

    assert main([service.url, "--model", "digits", "--since", began.isoformat()]) == 0
    file = tmp_path / "load.csv"
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    sent = clients.answers.total() + (BATCH - 1) * clients.batches
    assert sum(read_load(file)) == sent
