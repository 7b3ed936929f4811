"""ROHE's clients against this service, started by the line that ROHE's README prints.

The calls are those of ROHE's `predict_request_thread.py`, `client.py` and its processing service, in our words.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import yaml
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from support.service import Service, free_port

pytestmark = pytest.mark.process

#: as in ROHE's README: python server.py --config ./configurations/config.json --port 30005
CONFIG = Path("configurations/config.json")


@pytest.fixture(scope="module")
def rohe_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The flat form on the embedded default; nothing listens where its MongoDB should be."""
    folder = tmp_path_factory.mktemp("rohe")
    variables = {
        "INFERENCE_DATA_DIR": str(folder / "data"),
        "INFERENCE_MONGODB__URL": f"mongodb://127.0.0.1:{free_port()}",
    }
    running = Service(folder, {}, config=CONFIG, variables=variables)
    try:
        running.start()
        yield running
    finally:
        running.end()


def digit_pictures(count: int = 100) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """(n, 32, 32, 3) float32, 0 to 255, and their digits: scikit-learn's, each pixel a square of 4x4."""
    digits = load_digits()
    squares = np.kron(digits.images[:count] * (255 / 16), np.ones((1, 4, 4)))
    return np.repeat(squares[..., None], 3, axis=-1).astype(np.float32), digits.target[:count]


def send(url: str, image: bytes, metadata: dict[str, Any], **fields: str) -> requests.Response:
    payload = {"metadata": json.dumps(metadata)} | fields
    files = {"image": ("image", image, "application/octet-stream")}
    return requests.post(url, data=payload, files=files, timeout=60)


def test_the_client_that_counts_what_is_right(rohe_service: Service) -> None:
    """Twenty threads; `command` and `metadata` as form fields; the class out of `response`."""
    url = f"{rohe_service.url}/inference_service"

    def is_right(image: NDArray[np.float32], label: int) -> bool:
        response = send(url, image.tobytes(), {"shape": "32,32,3", "dtype": str(image.dtype)}, command="predict")
        answer = json.loads(response.text)["response"]
        assert 0 <= float(answer["confidence_level"]) <= 1
        assert len(answer["prediction"]) == 10
        return int(answer["class"]) == int(label)

    with ThreadPoolExecutor(20) as pool:
        right = list(pool.map(is_right, *digit_pictures()))

    assert sum(right) >= 95


@pytest.mark.parametrize("path", ["/inference", "/inference_service"])
def test_the_processing_service_sends_no_command_and_a_request_id(rohe_service: Service, path: str) -> None:
    (image, *_), _ = digit_pictures(1)
    shape = ",".join(map(str, image.shape))

    answer = send(
        f"{rohe_service.url}{path}", image.tobytes(), {"request_id": "42", "shape": shape, "dtype": str(image.dtype)}
    ).json()

    assert answer["response"]["class"] == 0
    assert answer["request_id"] == "42"
    assert answer["model"]["name"] == "vgg_0"


def test_a_request_id_as_a_field_of_its_own_or_none(rohe_service: Service) -> None:
    (image, *_), _ = digit_pictures(1)
    url, metadata = f"{rohe_service.url}/inference", {"shape": "32,32,3", "dtype": "float32"}

    named = send(url, image.tobytes(), metadata, command="predict", request_id="12345").json()
    unnamed = send(url, image.tobytes(), metadata, command="predict").json()

    assert named["request_id"] == "12345"
    assert len(unnamed["request_id"]) == 32


@pytest.mark.parametrize("shape", ["32,32,3", "32, 32, 3", "32x32x3", "32x32", "(32, 32, 3)", [32, 32, 3], [32, 32]])
@pytest.mark.parametrize("dtype", ["float32", "uint8", "float64", ">f4", "<i2"])
def test_shapes_and_dtypes_as_they_are_written(rohe_service: Service, shape: Any, dtype: str) -> None:
    (_, image, *_), _ = digit_pictures(2)

    response = send(f"{rohe_service.url}/inference", np.rint(image).astype(dtype).tobytes(), {"shape": shape, "dtype": dtype})

    assert response.json()["response"]["class"] == 1


def test_what_is_missing_or_invalid_is_a_400_that_says_what(rohe_service: Service) -> None:
    url = f"{rohe_service.url}/inference"
    short = send(url, b"\0" * 100, {"shape": "32,32,3", "dtype": "float32"})
    other = send(url, b"\0" * (256 * 256 * 3), {"shape": "256x256", "dtype": "uint8"})
    python = requests.post(
        url,
        data={"metadata": str({"shape": "32,32,3"})},
        files={"image": ("image", b"\0", "application/octet-stream")},
        timeout=60,
    )
    nothing = requests.post(url, data={"command": "predict"}, timeout=60)

    assert [answer.status_code for answer in (short, other, python, nothing)] == [400] * 4
    assert "100 bytes" in short.json()["detail"]
    assert "12288" in short.json()["detail"]
    assert "32,32,3" in other.json()["expected"]
    assert (python.json()["field"], nothing.json()["field"]) == ("metadata", "image")


@pytest.mark.parametrize("path", ["/inference", "/inference_service"])
def test_a_get_says_who_it_is(rohe_service: Service, path: str) -> None:
    who = requests.get(f"{rohe_service.url}{path}", timeout=60).json()

    assert "vgg_0" in who["response"]
    assert (who["pipeline_id"], who["model"]["name"], who["ensemble_mode"]) == ("pipeline_1", "vgg_0", False)


def test_mongodb_that_is_not_there_delays_delivery_alone(rohe_service: Service) -> None:
    (image, *_), _ = digit_pictures(1)
    answer = send(f"{rohe_service.url}/inference", image.tobytes(), {"shape": "32,32,3", "dtype": "float32"}).json()

    assert answer["response"]["class"] == 0
    assert rohe_service.task(answer["task_id"])["deliveries"] == [{"sink": "mongodb", "status": "pending"}]


def test_check_config_shows_what_each_key_became(repository: Path, tmp_path: Path) -> None:
    document = json.loads((repository / CONFIG).read_text(encoding="utf-8"))
    document["mongodb"] |= {"username": "admin_user", "password": "admin_pass"}
    file = tmp_path / "config.json"
    file.write_text(json.dumps(document | {"qoa_config": {"client": {}}}), encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "server.py", "check-config", str(file)], cwd=repository, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "# model_info.chosen_model_id → default_model: vgg_0\n" in done.stdout
    assert "# mongodb.host → mongodb.url: mongodb://admin_user:**********@localhost:27017\n" in done.stdout
    assert "admin_pass" not in done.stdout + done.stderr
    assert "warning: qoa_config is not used here\n" in done.stderr
    assert yaml.safe_load(done.stdout)["kafka"]["topic"] == "nii_case"
