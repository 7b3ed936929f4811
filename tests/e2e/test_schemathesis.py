"""schemathesis makes requests from the OpenAPI document: no answer is outside it, and none is an error of the server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from support.contract import operations
from support.service import ROOT, Service

pytestmark = pytest.mark.process

#: They do the same as /inference, and the commands alone take half of the time: each waits for every process to follow it.
#: The answer of /events has no end. Other event streams end with their task or batch, and those of unknown ones are problems.
_LEFT_OUT = ("/inference_service", "/inference_service_controller", "/events")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of its own, since commands change what it serves."""
    running = Service(tmp_path_factory.mktemp("schemathesis"), {"models": ["models/digits"], "sinks": []})
    try:
        running.start()
        yield running
    finally:
        running.end()


def schemathesis(folder: Path, document: Path | str, url: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run it in a folder of its own, where it keeps its findings."""
    (folder / "tests").symlink_to(ROOT / "tests")
    command = (sys.executable, "-m", "schemathesis.cli", "--config-file", "tests/schemathesis.toml", "run", document)
    more = ("--url", url, "--no-color", *options)
    return subprocess.run([*command, *more], cwd=folder, capture_output=True, text=True, check=False)


def test_requests_made_from_the_document(digits: Service, tmp_path: Path) -> None:
    left_out = [option for path in _LEFT_OUT for option in ("--exclude-path", path)]
    done = schemathesis(tmp_path, f"{digits.url}/openapi.json", digits.url, "--max-examples", "10", *left_out)
    assert done.returncode == 0, done.stdout + done.stderr
    count = sum(path not in {*_LEFT_OUT, "/openapi.json"} for _, path, _ in operations())  # it leaves out the document by itself
    assert f"Tested: {count}\n" in done.stdout
    assert all(f"✅ {phase}\n" in done.stdout for phase in ("Examples", "Coverage", "Fuzzing", "Stateful")), done.stdout


@pytest.mark.parametrize("change", ["member", "status", "media type"])
def test_it_finds_an_answer_outside_the_document(digits: Service, tmp_path: Path, change: str) -> None:
    document: dict[str, Any] = requests.get(f"{digits.url}/openapi.json", timeout=20).json()
    responses = document["paths"]["/health/live"]["get"]["responses"]
    match change:
        case "member":
            document["components"]["schemas"]["Liveness"]["required"].append("since")
        case "status":
            responses["201"] = responses.pop("200")
        case _:
            responses["200"]["content"] = {"text/plain": {}}
    (file := tmp_path / "openapi.json").write_text(json.dumps(document), encoding="utf-8")
    done = schemathesis(tmp_path, file, digits.url, "--max-examples", "1", "--include-path", "/health/live")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 unique failure" in done.stdout
