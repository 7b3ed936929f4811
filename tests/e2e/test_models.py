"""Several models in one service: Keras 2's in a bucket and in a folder, variants, thresholds and devices."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from minio import Minio
from numpy.typing import NDArray
from support.file_sink import file_documents
from support.service import Service, wait_until

pytestmark = [pytest.mark.process, pytest.mark.services]

#: between Keras 2 and Keras 3, and between batches of other sizes
TOLERANCE = 1e-5
#: above what the model says of any of the images
HIGH = 0.9
LABELS = ["ant", "bee", "cat", "dog", "eel"]


@pytest.fixture(scope="module")
def fixtures(repository: Path) -> Path:
    return repository / "tests" / "fixtures" / "keras2"


@pytest.fixture(scope="module")
def expected(fixtures: Path) -> Mapping[str, NDArray[Any]]:
    """Images, and Keras 2's own answers for them."""
    with np.load(fixtures / "expected.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def bucket(services_env: dict[str, str], fixtures: Path) -> Iterator[str]:
    """A bucket with the classifier's files."""
    client = Minio(
        services_env["MINIO_ENDPOINT"].removeprefix("http://"),
        access_key=services_env["MINIO_ACCESS_KEY"],
        secret_key=services_env["MINIO_SECRET_KEY"],
        secure=False,
    )
    name = f"test-models-{fixtures.stat().st_mtime_ns}"
    if not client.bucket_exists(name):
        client.make_bucket(name)
    for file in ("classifier.json", "classifier_weights.h5"):
        data = (fixtures / file).read_bytes()
        client.put_object(name, f"nets/{file}", io.BytesIO(data), len(data))
    yield name
    for found in client.list_objects(name, recursive=True):
        client.remove_object(name, found.object_name or "")
    client.remove_bucket(name)


#: One sigmoid unit, which is over 0.5 for a bright image. In a process of its own: Keras takes seconds.
_DAYLIGHT = """
import sys
import keras
from keras import initializers, layers

unit = layers.Dense(1, "sigmoid", kernel_initializer=initializers.Constant(4), bias_initializer=initializers.Constant(-6))
body = [keras.Input((12, 10, 3)), layers.Rescaling(1 / 255), layers.GlobalAveragePooling2D()]
keras.Sequential([*body, unit]).save(sys.argv[1])
"""


@pytest.fixture(scope="module")
def daylight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A model that says whether an image is bright; its labels as an editor of Windows saves them."""
    folder = tmp_path_factory.mktemp("daylight")
    subprocess.run([sys.executable, "-c", _DAYLIGHT, folder / "m.keras"], check=True, capture_output=True)
    (folder / "labels.txt").write_bytes(b"\xef\xbb\xbfnight\r\nday\r\n")
    files = {"file": str(folder / "m.keras"), "labels_file": str(folder / "labels.txt")}
    return {"name": "daylight", "input": {"shape": [12, 10, 3]}, "threshold": 0.8, **files}


@pytest.fixture(scope="module")
def settings(services_env: dict[str, str], bucket: str, fixtures: Path, daylight: dict[str, Any]) -> dict[str, Any]:
    classifier = {
        "name": "remote",
        "architecture_file": f"s3://{bucket}/nets/classifier.json",
        "weights_file": f"s3://{bucket}/nets/classifier_weights.h5",
        "labels": LABELS,
        "threshold": 0.5,
        "device": "cpu",
        "input": {"shape": [12, 10, 3]},
        "variants": {"strict": {"threshold": HIGH}, "halved": {"mixed_precision": True, "device": "gpu"}},
    }
    nested = {"name": "nested", "file": str(fixtures / "nested.h5"), "xla": True, "input": {"shape": [12, 10, 3]}}
    keys = {"access_key": services_env["MINIO_ACCESS_KEY"], "secret_key": services_env["MINIO_SECRET_KEY"]}
    return {
        "models": ["models/digits", classifier, nested, daylight],
        "default_model": "remote",
        "s3": {"endpoint": services_env["MINIO_ENDPOINT"], **keys},
        "model_files": {"bucket": bucket},
        "worker": {"max_batch_size": 4},
    }


@pytest.fixture(scope="module")
def running(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    own_cache = {"INFERENCE_MODEL_FILES__CACHE_DIR": str(folder / "data" / "model-files")}
    service = Service(folder, settings, variables=own_cache)
    try:
        service.start()
        yield service
    finally:
        service.end()


def ask(service: Service, image: NDArray[np.uint8], model: str | None) -> dict[str, Any]:
    metadata = {"shape": "12,10,3", "dtype": "uint8"} | ({"model": model} if model else {})
    response = service.post(image.tobytes(), metadata=json.dumps(metadata))
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_each_model_answers_as_keras_2_does(running: Service, expected: Mapping[str, NDArray[Any]]) -> None:
    names = {None: "classifier", "remote": "classifier", "strict": "classifier", "nested": "nested"}
    for model, name in names.items():
        for image, vector in zip(expected["images"], expected[name], strict=True):
            answer = ask(running, image, model)
            np.testing.assert_allclose(answer["response"]["prediction"], vector, atol=TOLERANCE)
            assert answer["model"]["name"] == (model or "remote")


@pytest.mark.parametrize(
    ("pixel", "label", "confidence", "confident"),
    [(255, "day", 0.9975, True), (0, "night", 0.9975, True), (130, "day", 0.529, False)],
)
def test_one_sigmoid_unit_is_two_classes(running: Service, pixel: int, label: str, confidence: float, confident: bool) -> None:
    response = ask(running, np.full((12, 10, 3), pixel, np.uint8), "daylight")["response"]
    assert (response["class"], response["label"], response["confident"]) == (["night", "day"].index(label), label, confident)
    assert response["confidence_level"] == pytest.approx(confidence, abs=1e-3)
    assert sum(response["prediction"]) == pytest.approx(1)


def test_a_variant_in_half_precision_is_close_on_the_cpu_that_took_the_gpus_place(
    running: Service, expected: Mapping[str, NDArray[Any]]
) -> None:
    answer = ask(running, expected["images"][0], "halved")
    np.testing.assert_allclose(answer["response"]["prediction"], expected["classifier"][0], atol=0.02)


def test_a_threshold_says_which_results_are_confident(running: Service, expected: Mapping[str, NDArray[Any]]) -> None:
    image, best = expected["images"][0], expected["classifier"][0].max()
    assert 0.5 < best < HIGH
    answers = {model: ask(running, image, model) for model in ("remote", "strict", "nested")}
    confident = {model: answer["response"].get("confident") for model, answer in answers.items()}
    assert confident == {"remote": True, "strict": False, "nested": None}
    assert "confident" not in answers["nested"]["response"]
    assert answers["remote"]["response"]["label"] in LABELS

    def delivered() -> dict[str, Any] | None:
        documents = {document["task_id"]: document for document in file_documents(running.data_dir)}
        asked = {model: documents.get(answer["task_id"]) for model, answer in answers.items()}
        return asked if all(asked.values()) else None

    documents = wait_until(delivered, timeout_s=30, what="the results are delivered")
    assert {model: document.get("confident") for model, document in documents.items()} == confident


def test_a_file_in_the_bucket_is_here_once(running: Service) -> None:
    """API and worker share it; converted models are beside it."""
    found = (running.data_dir / "model-files").glob("*/*.*")
    files = [path.name for path in found if path.suffix in {".h5", ".json"} and path.parent.name not in {"objects", "litert"}]
    assert sorted(files) == ["classifier.json", "classifier_weights.h5"]


def test_check_config_lists_the_models(running: Service, repository: Path) -> None:
    command = [sys.executable, "server.py", "check-config", str(running.config)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    names = [line.split()[2] for line in lines if line.startswith("# model ")]
    assert sorted(names) == ["daylight", "digits", "halved", "nested", "remote", "strict"]
    (served,) = (line for line in lines if line.endswith("served)"))
    assert "nets/classifier_weights.h5; sha256:" in served
    assert "queue predict.remote" in served


def test_an_object_that_is_not_there_ends_the_start_before_anything_runs(
    repository: Path, settings: dict[str, Any], bucket: str, tmp_path: Path
) -> None:
    model = settings["models"][1] | {"weights_file": f"s3://{bucket}/nets/gone.h5"}
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(settings | {"models": [model], "data_dir": str(tmp_path / "data")}), encoding="utf-8")
    command = [sys.executable, "server.py", "--config", str(config), "--port", "39998"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last == f"error: models.0: weights_file: there is no object nets/gone.h5 in the bucket {bucket}"
