"""`server.py status`, asked about a running service."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest
from support.service import ROOT, Service, wait_until

pytestmark = pytest.mark.process


def status(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "server.py", "status", *arguments]
    return subprocess.run(command, cwd=ROOT, env=service.environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_service_that_runs_is_well(service: Service) -> None:
    service.post(ROOT / "samples" / "digit_7.png", model="digits")
    document: dict[str, Any] = {}

    def is_delivered() -> bool:
        done = status(service, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        document.update(json.loads(done.stdout))
        return document["sinks"][0]["outbox"]["entries"] == 0

    wait_until(is_delivered, timeout_s=20, what="the delivery")
    assert document["stores"] == {"task_store": "ok", "broker": "ok", "object_store": "ok"}
    assert [(model["model"], model["workers"]) for model in document["models"]] == [("efficientnet-lite0", 1), ("digits", 1)]
    assert [len(sink["relays"]) for sink in document["sinks"]] == [1]
    assert document["problems"] == []


def test_people_get_a_table(service: Service) -> None:
    done = status(service)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^digits +1 +0 +- +- +1$", done.stdout, re.MULTILINE)
    assert done.stdout.endswith("all is well\n")


def test_a_service_that_is_not_there_needs_a_look(service: Service) -> None:
    elsewhere = service.environment | {"INFERENCE_DATA_DIR": str(service.data_dir / "elsewhere")}
    command = [sys.executable, "server.py", "status"]
    done = subprocess.run(command, cwd=ROOT, env=elsewhere, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "! task_store: the task store does not answer" in done.stdout
