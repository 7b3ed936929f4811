"""An upgrade and its rollback under load, as docs/upgrading.md says: two versions, a message format apart, on the same stores."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from support.client import Client, free_port, wait_until
from support.digits import METADATA
from support.parts import Parts
from support.service import ROOT
from support.steady_load import SteadyLoad, wait_delivered
from support.unsupervised import IMAGE, SHORT_LEASES, running_parts

pytestmark = [pytest.mark.process, pytest.mark.timeout(400)]

_NEWER = "tests/support/newer_version.py"
_LEFT = "is of a newer version: such messages are left to workers of it"


@pytest.fixture
def older(tmp_path: Path) -> Iterator[Parts]:
    """This version's parts, on the embedded broker."""
    with running_parts(tmp_path, SHORT_LEASES, with_broker=True) as parts:
        yield parts


def start_newer_worker(parts: Parts) -> None:
    parts.start("newer-worker", _NEWER, "worker", "-n", "newer@%h", PYTHONPATH=".")
    wait_until(lambda: len(status(parts)["workers"]) == 2, timeout_s=120, what="both versions have a worker")


def start_newer_api(parts: Parts) -> Client:
    api = Client(free_port())
    parts.start("newer-api", _NEWER, "api", "--port", str(api.port), PYTHONPATH=".")
    wait_until(api.is_ready, timeout_s=120, what="the newer API is ready")
    return api


def status(parts: Parts) -> dict[str, list[object]]:
    command = [sys.executable, "server.py", "status", "--json"]
    done = subprocess.run(command, cwd=ROOT, env=parts.environment, capture_output=True, text=True, check=False)
    found: dict[str, list[object]] = json.loads(done.stdout)
    return found


def test_upgrade_and_rollback_lose_nothing(older: Parts, tmp_path: Path) -> None:
    with SteadyLoad(older) as load:
        load.wait_more(15)

        # the upgrade: workers, relays, APIs
        start_newer_worker(older)
        older.start("newer-relay", _NEWER, "relay", PYTHONPATH=".")
        newer = start_newer_api(older)
        load.apis = [older, newer]
        wait_until(lambda: _LEFT in older.log("worker"), timeout_s=60, what="an older worker has met a newer message")
        for api in load.apis:  # the reply of either worker reaches the API of either version
            assert [api.post(IMAGE, metadata=METADATA).status_code for _ in range(4)] == [200] * 4
        load.wait_more(15)
        load.apis = [newer]
        older.stop("api", "relay", "worker")
        load.wait_more(15)

        # the rollback, the other way round
        older.start_worker("worker")
        older.start_relay("relay")
        older.start_api()
        older.wait_ready()
        load.apis = [older, newer]
        load.wait_more(15)
        load.apis = [older]
        older.stop("newer-api", "newer-relay")
        wait_delivered(older, load.accepted[:])  # no newer message is left
        older.stop("newer-worker")
        load.wait_more(15)

    tasks = wait_delivered(older, load.accepted)
    assert [task["task_id"] for task in tasks if task["attempts"] != 1] == []
    assert load.refused == []
    found = Counter(orjson.loads(line)["task_id"] for line in (tmp_path / "data/results.jsonl").read_bytes().splitlines())
    assert set(load.accepted) <= found.keys()
    assert status(older)["problems"] == []
