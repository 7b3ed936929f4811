"""Clients of the Open Inference Protocol, unchanged, each in an environment of its own; and the examples of docs/v2.md."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from support.service import ROOT, Service

pytestmark = pytest.mark.process

PRINTED_ADDRESS = "127.0.0.1:30005"
ENVIRONMENTS = ROOT / "build" / "v2-clients"


def run(command: list[str | Path]) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def python_of(environment: str) -> Path:
    found = ENVIRONMENTS / environment / "bin" / "python"
    assert found.exists(), f"{found} is missing: `make {ENVIRONMENTS.relative_to(ROOT)}/{environment}/.installed` creates it"
    return found


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a seven as the digits model takes it: (8, 8, 1) float32."""
    digits = load_digits()
    file = tmp_path_factory.mktemp("digits") / "seven.npy"
    np.save(file, (digits.images[digits.target == 7][0] * (255 / 16)).astype("<f4")[..., None])
    return file


def results_of(script: str, environment: str, service: Service, seven: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run([python_of(environment), f"tests/clients/{script}", service.url, seven]))
    return found


def test_tritonclient(service: Service, seven: Path) -> None:
    found = results_of("triton_sync.py", "tritonclient", service, seven)
    metadata = found["metadata"]
    assert metadata["health"] == [True] * 3
    assert metadata["unknown"] == [False] * 2
    assert metadata["server"]["name"] == "image-inference"
    assert metadata["model"]["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 8, 8, 1]}]
    assert metadata["model"]["platform"]
    assert metadata["same"]
    assert metadata["index"] == {"efficientnet-lite0": "READY", "digits": "READY"}
    assert metadata["load"] is None
    assert metadata["unload"][0] == "400"
    assert metadata["config"][1].startswith("parameters.config:")
    assert found["arrays"] == {"labels": True, "shape": [32, 10], "same": [True] * 7, "id": "sevens", "tasks": 32}
    photos = found["photos"]
    assert photos["labels"] == ["espresso"] * 2
    assert re.fullmatch(r"0\.\d{6}:967:espresso", photos["best"][0])
    assert len(photos["best"]) == 4
    assert photos["in_json"][0] == photos["best"][:2]


def test_errors_of_tritonclient(service: Service, seven: Path) -> None:
    errors = results_of("triton_sync.py", "tritonclient", service, seven)["errors"]
    statuses = {name: status for name, (status, _) in errors.items()}
    assert statuses == {"model": "404", "shape": "400", "file": "400", "not finite": "400", "late": "504", "same id": "409"}
    assert "image 0: the shape 4,8,1 is not the model's 8,8,1" in errors["shape"][1]
    assert "image 1: " in errors["file"][1]
    assert "NaN or infinite values" in errors["not finite"][1]


def test_tritonclient_aio(service: Service, seven: Path) -> None:
    found = results_of("triton_aio.py", "tritonclient", service, seven)
    assert found["ready"] == [True] * 3
    assert (found["server"], found["model"]) == ("image-inference", "digits")
    assert found["labels"] == ["7"] * 10
    assert found["best"].endswith(":7:7")
    assert found["unknown"][0] == "404"


def test_kserve(service: Service, seven: Path) -> None:
    found = results_of("kserve_rest.py", "kserve", service, seven)
    assert (found["live"], found["ready"]) == (True, [True, True])
    assert found["labels"] == [True, True]
    assert found["ids"] == ["sevens"] * 2
    assert (found["shape"], found["same"], found["tasks"]) == ([32, 10], True, 32)
    assert found["outputs"] == ["prediction"]
    assert "'404 NOT FOUND'" in found["unknown"]
    assert "cats" in found["unknown"]


def blocks(language: str, service: Service) -> list[str]:
    text = (ROOT / "docs" / "v2.md").read_text(encoding="utf-8").replace(PRINTED_ADDRESS, service.url.removeprefix("http://"))
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_curl_example(service: Service) -> None:
    (script,) = blocks("sh", service)
    model, answer = (json.loads(line) for line in run(["bash", "-ec", script]).splitlines())
    assert model["name"] == "efficientnet-lite0"
    assert answer["outputs"] == [{"name": "label", "datatype": "BYTES", "shape": [1], "data": ["espresso"]}]


def test_the_python_examples(service: Service) -> None:
    triton, kserve = blocks("python", service)
    assert "espresso" in run([python_of("tritonclient"), "-c", triton])
    assert len(json.loads(run([python_of("kserve"), "-c", kserve]).replace("'", '"'))) == 2
