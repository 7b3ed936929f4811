"""The Kafka that tests and `make services` start."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.private_servers import PrivateServer

from dev.servers.servers import kafka


@pytest.mark.usefixtures("services_env")  # the programs are installed then
def test_a_cluster_id_that_begins_with_a_hyphen_is_no_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.token_urlsafe", lambda _bytes: "-" + 21 * "A")
    server = PrivateServer(kafka.KIND, tmp_path)
    try:
        server.start()
    finally:
        server.stop()
