"""`server.py serve FILE` from a folder of the user's: the answers are those of the model itself."""

from __future__ import annotations

import io
import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from support.model_files import SHAPE, images, network, rescaled, run_onnx, run_tflite, save_onnx, save_tflite
from support.real_servers import minio_client
from support.service import Service

pytestmark = [pytest.mark.process, pytest.mark.timeout(400)]

#: The inspection of a SavedModel and the conversion of three models each import TensorFlow.
_START_TIMEOUT_S = 300

#: LiteRT's answers differ from TensorFlow's by at most this.
TOLERANCE = 1e-5


def answer(service: Service, image: Any, model: str | None = None) -> dict[str, Any]:
    metadata = {"shape": SHAPE, "dtype": "uint8"} | ({"model": model} if model else {})
    found: dict[str, Any] = service.post(image.tobytes(), metadata=json.dumps(metadata)).json()
    return found


def test_several_files_are_served_as_their_models_answer_in_process(tmp_path: Path, repository: Path) -> None:
    layers = keras.layers
    models = {
        "my-flowers": rescaled(),
        "binary": rescaled(layers.Dense(1, activation="sigmoid")),
        "exported": network(first=[layers.Normalization(mean=[120.0] * 3, variance=[3600.0] * 3)]),
    }
    models["my-flowers"].save(tmp_path / "My Flowers.keras")
    models["binary"].save(tmp_path / "binary.h5")
    models["exported"].export(tmp_path / "exported", verbose=False)
    save_tflite(rescaled(), tmp_path / "small.tflite", is_quantised=True)
    (tmp_path / "sub").mkdir()
    names = ("My Flowers.keras", "binary.h5", "exported", "small.tflite", str(repository / "models" / "digits"))
    service = Service(tmp_path / "sub", {}, command=("serve", *names), cwd=tmp_path)
    try:
        service.start(wait=False)
        service.wait_ready(_START_TIMEOUT_S)
        for image in images(3):
            for name, model in models.items():
                expected = np.asarray(model(image[None].astype(np.float32)))[0]
                expected = np.array([1 - expected[0], expected[0]]) if name == "binary" else expected
                found = answer(service, image, name)
                assert found["model"]["name"] == name
                np.testing.assert_allclose(found["response"]["prediction"], expected, atol=TOLERANCE)
            expected = run_tflite(tmp_path / "small.tflite", image)
            np.testing.assert_allclose(answer(service, image, "small")["response"]["prediction"], expected, atol=TOLERANCE)
        assert answer(service, images(1)[0])["model"]["name"] == "my-flowers"
        assert "my-flowers: Keras, images 16x16x3 float32, 3 classes (softmax)" in service.log
        assert "exported: SavedModel, images 16x16x3 float32, 3 classes (softmax)" in service.log
        assert "digits: digits.keras, images 8x8x1 float32, 10 labels, as its model.yaml says" in service.log
        assert "small: LiteRT, images 16x16x3 uint8, 3 classes (softmax)" in service.log
        for name in (*models, "small", "digits"):
            found_line, rate_line = (line for line in service.log.splitlines() if line.startswith(f"{name}: "))
            assert ", images " in found_line
            assert "images/s here by " in rate_line
    finally:
        service.end()


def test_scale_activation_and_labels_are_those_that_the_command_names(tmp_path: Path) -> None:
    model = network(last=[keras.layers.Dense(3)])
    model.save(tmp_path / "net.keras")
    save_onnx(tmp_path / "torch.onnx", has_softmax=False)
    (tmp_path / "labels.txt").write_bytes(b"rose\r\ntulip\r\ndaisy\r\n")
    options = ("--scale", "-1..1", "--activation", "softmax", "--threshold", "0.4")
    service = Service(tmp_path, {}, command=("serve", "net.keras", "torch.onnx", *options), cwd=tmp_path)
    try:
        service.start(wait=False)
        service.wait_ready(_START_TIMEOUT_S)
        for image in images(3):
            scaled = image / np.float32(127.5) - 1
            logits = {
                "net": np.asarray(model(scaled[None]))[0],
                "torch": run_onnx(tmp_path / "torch.onnx", np.moveaxis(scaled, -1, 0)),
            }
            for name, values in logits.items():
                expected = np.exp(values - values.max()) / np.exp(values - values.max()).sum()
                response = answer(service, image, name)["response"]
                np.testing.assert_allclose(response["prediction"], expected, atol=TOLERANCE)
                assert response["label"] == ("rose", "tulip", "daisy")[expected.argmax()]
                assert response["confident"] is bool(expected.max() >= 0.4)
    finally:
        service.end()


@pytest.fixture
def bucket(services_env: dict[str, str]) -> Iterator[str]:
    """A bucket that no setting names, deleted afterwards."""
    client, name = minio_client(services_env), f"test-{uuid.uuid4().hex[:12]}"
    client.make_bucket(name)
    yield name
    for found in client.list_objects(name, recursive=True):
        client.remove_object(name, found.object_name or "")
    client.remove_bucket(name)


@pytest.mark.services
def test_model_in_a_bucket_is_served_with_the_labels_beside_it(tmp_path: Path, services_env: dict[str, str], bucket: str) -> None:
    model = rescaled()
    model.save(tmp_path / "flowers.keras")
    client = minio_client(services_env)
    client.fput_object(bucket, "nets/flowers.keras", str(tmp_path / "flowers.keras"))
    client.put_object(bucket, "nets/labels.txt", io.BytesIO(b"rose\ntulip\ndaisy\n"), 17)
    keys = {name: services_env[f"MINIO_{name.upper()}"] for name in ("endpoint", "access_key", "secret_key")}
    cache = {"INFERENCE_MODEL_FILES__CACHE_DIR": str(tmp_path / "cache")}  # so that this start converts the model
    command = ("serve", f"s3://{bucket}/nets/flowers.keras")
    service = Service(tmp_path, {"s3": keys}, variables=cache, command=command, cwd=tmp_path)
    try:
        service.start(wait=False)
        service.wait_ready(_START_TIMEOUT_S)
        (image,) = images(1)
        expected = np.asarray(model(image[None].astype(np.float32)))[0]
        response = answer(service, image)["response"]
        np.testing.assert_allclose(response["prediction"], expected, atol=TOLERANCE)
        assert response["label"] == ("rose", "tulip", "daisy")[expected.argmax()]
        assert "flowers: converting it for LiteRT" in service.log
    finally:
        service.end()


def test_make_run_serves_a_file(repository: Path) -> None:
    variables = ("MODEL=My Flowers.keras", "LABELS=names.txt", "ARGS=--scale 1/255")
    done = subprocess.run(["make", "-n", "run", *variables], cwd=repository, capture_output=True, text=True, check=True)
    plain = subprocess.run(["make", "-n", "run"], cwd=repository, capture_output=True, text=True, check=True)

    command = 'server.py serve "My Flowers.keras" --labels "names.txt" --config configurations/local.yaml --scale 1/255'
    assert command in " ".join(done.stdout.split())
    assert "server.py --config configurations/local.yaml" in " ".join(plain.stdout.split())
    assert "serve" not in plain.stdout.replace("server.py", "")
