"""The example of a model with code in docs/models.md, served: its results everywhere, and an image that its code refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import requests
from numpy.typing import NDArray
from support import graph_files
from support.file_sink import file_documents
from support.service import ROOT, Service, wait_until

pytestmark = pytest.mark.process

TOLERANCE = 1e-5
SHAPE = (224, 224, 3)
IMAGE = np.random.default_rng(4).integers(0, 256, SHAPE, np.uint8)
BLANK = np.full(SHAPE, 9, np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of the documentation."""
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8").partition("\n## Code of a model\n")[2].partition("\n## ")[0]
    (description,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (source,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    folder: Path = tmp_path_factory.mktemp("flowers")
    (folder / "model.yaml").write_text(description, encoding="utf-8")
    (folder / "classifier.py").write_text(source, encoding="utf-8")
    graph_files.save(graph_files.classifier(size=SHAPE[:2]), folder, "flowers.onnx")
    return folder


@pytest.fixture(scope="module")
def running(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Batches wait until they have two images."""
    settings = {"models": [str(folder)], "worker": {"max_batch_size": 2, "max_batch_wait_ms": 10_000}}
    service = Service(tmp_path_factory.mktemp("service"), settings)
    try:
        service.start()
        yield service
    finally:
        service.end()


def expected(folder: Path) -> NDArray[np.float32]:
    """Answer of the graph itself to the image."""
    values = IMAGE.astype(np.float32)
    batch = ((values - values.mean()) / values.std()).transpose(2, 0, 1)[np.newaxis]
    session = onnxruntime.InferenceSession(folder / "flowers.onnx", providers=["CPUExecutionProvider"])
    (answers,) = session.run(None, {"images": batch})
    row: NDArray[np.float32] = answers[0]
    return row


@pytest.fixture(scope="module")
def items(running: Service) -> list[dict[str, Any]]:
    """A good image and a blank one, which ran in one batch."""
    files = [("image", (str(number), image.tobytes())) for number, image in enumerate((IMAGE, BLANK))]
    metadata = json.dumps({"shape": SHAPE, "dtype": "uint8"})
    response = requests.post(f"{running.url}/inference/batch", files=files, data={"metadata": metadata}, timeout=90)
    assert response.status_code == requests.codes.ok, response.text
    found: list[dict[str, Any]] = response.json()["items"]
    return found


def test_an_image_that_the_code_refuses_fails_alone(running: Service, folder: Path, items: list[dict[str, Any]]) -> None:
    good, blank = items
    assert [good["status"], blank["status"]] == ["succeeded", "failed"]
    np.testing.assert_allclose(good["result"]["prediction"], expected(folder), atol=TOLERANCE)
    assert running.task(good["task_id"])["batch_size"] == 2
    assert blank["error"]["code"] == "prediction_failed"
    assert blank["error"]["detail"] == "preprocess of Flowers raised ValueError: the image is blank"
    assert str(folder) not in json.dumps(items)
    events = [json.loads(line) for line in running.log.splitlines() if line.startswith("{")]
    (shown,) = [event for event in events if event["process"] == "predictor"]
    assert 'raise ValueError("the image is blank")' in shown["exception"]
    assert len(running.processes("predictor")) == 1


def test_what_postprocess_returned_is_in_the_answer_the_task_and_the_sink(
    running: Service, folder: Path, items: list[dict[str, Any]]
) -> None:
    second, best = np.sort(expected(folder))[-2:]
    custom = items[0]["result"]["custom"]
    assert custom == {"margin": pytest.approx(float(best - second), abs=TOLERANCE), "needs_review": bool(best - second < 0.2)}
    task_id = items[0]["task_id"]
    assert running.task(task_id)["result"]["custom"] == custom

    def delivered() -> dict[str, Any] | None:
        return next((document for document in file_documents(running.data_dir) if document["task_id"] == task_id), None)

    assert wait_until(delivered, timeout_s=30, what="the result is delivered")["custom"] == custom


def test_models_check_says_that_code_runs_and_shows_its_result(folder: Path) -> None:
    command = [sys.executable, "server.py", "models", "check", str(folder), "--image", "samples/chelsea.jpg"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "runs the code classifier.py:Flowers" in done.stdout
    assert re.search(r'custom \{"margin":0\.\d+,"needs_review":(true|false)\}', done.stdout)


def test_check_config_names_the_code_and_runs_nothing_of_it(running: Service, folder: Path) -> None:
    command = [sys.executable, "server.py", "check-config", str(running.config)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "(flowers.onnx with the code classifier.py:Flowers; sha256:" in done.stderr
