"""Photos and arrays in over HTTP, their classes out, through the queue."""

from __future__ import annotations

import contextlib
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import orjson
import pytest
import requests
from sklearn.datasets import load_digits
from support.service import Service, wait_until

from inference.runtime.open_files import raise_open_file_limit

pytestmark = pytest.mark.process

TABBY_CATS = {281, 282, 285}
ESPRESSO = 967


def digit_images() -> tuple[np.ndarray, np.ndarray]:
    """(n, 8, 8, 1) float32 pixels 0 to 255, and their digits: the first 200 of scikit-learn's."""
    digits = load_digits()
    pixels = (digits.images[:200] * (255 / 16)).astype("<f4")[..., None]
    return pixels, digits.target[:200]


def digit_metadata(**more: str) -> str:
    return json.dumps({"shape": [8, 8, 1], "dtype": "float32", "model": "digits"} | more)


def test_the_sample_photos_get_their_classes(service: Service, repository: Path) -> None:
    cat = service.post(repository / "samples/chelsea.jpg").json()
    cup = service.post(repository / "samples/coffee.jpg").json()

    assert cat["response"]["class"] in TABBY_CATS
    assert "cat" in cat["response"]["label"]
    assert cup["response"]["class"] == ESPRESSO
    assert len(cup["response"]["prediction"]) == 1000
    assert cup["response"]["confidence_level"] == cup["response"]["prediction"][ESPRESSO]
    assert sum(cup["response"]["prediction"]) == pytest.approx(1, abs=1e-4)
    assert cup["model"]["name"] == "efficientnet-lite0"
    assert cup["model"]["digest"].startswith("sha256:")


def test_the_printed_curl_works_as_printed(service: Service, repository: Path) -> None:
    import shlex  # noqa: PLC0415
    import subprocess  # noqa: PLC0415

    line = wait_until(
        lambda: next((row for row in service.log.splitlines() if row.startswith("try: ")), None),
        timeout_s=60,
        what="the ready line",
    )
    done = subprocess.run(shlex.split(line.removeprefix("try: ")), cwd=repository, capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout)["response"]["class"] in TABBY_CATS
    assert "samples/chelsea.jpg: class 28" in service.log


def test_raw_pixels_and_the_same_picture_as_a_file_agree(service: Service) -> None:
    from io import BytesIO  # noqa: PLC0415

    from PIL import Image  # noqa: PLC0415

    with Image.open(Path("samples/coffee.jpg")) as photo:
        pixels = np.asarray(photo.convert("RGB"))
    png = BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    npy = BytesIO()
    np.save(npy, pixels)

    raw = service.post(pixels.tobytes(), metadata=json.dumps({"shape": list(pixels.shape), "dtype": "uint8"}))
    answers = [raw.json(), service.post(png.getvalue()).json(), service.post(npy.getvalue()).json()]

    vectors = [answer["response"]["prediction"] for answer in answers]
    assert answers[0]["response"]["class"] == ESPRESSO
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-5)
    np.testing.assert_allclose(vectors[0], vectors[2], atol=1e-5)


def test_a_hundred_callers_at_once_get_their_own_answers(service: Service) -> None:
    pixels, digits = digit_images()

    def classify(number: int) -> tuple[str, int, list[float]]:
        answer = service.post(pixels[number].tobytes(), metadata=digit_metadata(request_id=f"caller-{number}"))
        assert answer.status_code == requests.codes.ok, answer.text
        document = answer.json()
        return document["request_id"], document["response"]["class"], document["response"]["prediction"]

    with ThreadPoolExecutor(100) as callers:
        together = list(callers.map(classify, range(100)))
    alone = [classify(number) for number in (0, 50, 99)]

    assert [request_id for request_id, _, _ in together] == [f"caller-{number}" for number in range(100)]
    assert np.mean([found == digit for (_, found, _), digit in zip(together, digits, strict=False)]) > 0.97
    for number, (_, _, vector) in zip((0, 50, 99), alone, strict=True):
        np.testing.assert_allclose(together[number][2], vector, atol=1e-5)  # whatever the batch


def test_results_reach_the_sink_once_each(service: Service) -> None:
    pixels, _ = digit_images()
    task_ids = {service.submit(pixels[number].tobytes(), metadata=digit_metadata()) for number in range(10)}

    def delivered() -> bool:
        return all(service.task(task_id)["deliveries"] == [{"sink": "jsonl", "status": "delivered"}] for task_id in task_ids)

    wait_until(delivered, timeout_s=30, what="every result is delivered")
    lines = (service.data_dir / "results.jsonl").read_bytes().splitlines()
    documents = [orjson.loads(line) for line in lines]
    found = [document for document in documents if document["task_id"] in task_ids]
    assert len(found) == len(task_ids)
    assert {"request_id", "prediction", "pipeline_id", "inference_model_id"} <= found[0].keys()
    assert found[0]["inference_model_id"] == "digits"


def test_a_bad_image_fails_alone(service: Service, repository: Path) -> None:
    whole = (repository / "samples/coffee.jpg").read_bytes()
    broken = whole[: len(whole) // 3] + bytes(200)

    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(service.post, [whole, broken] * 4))

    assert [answer.status_code for answer in answers] == [200, 400] * 4
    problem = answers[1].json()
    assert answers[1].headers["Content-Type"] == "application/problem+json"
    assert problem["code"] == "invalid_image"
    assert problem["field"] == "image"
    assert service.task(problem["task_id"])["status"] == "failed"


def test_who_comes_after_1500_slow_clients_is_answered(service: Service, repository: Path) -> None:
    """gunicorn would take 1,000, and leave the rest without a word."""
    kind = b"multipart/form-data; boundary=end"
    begun = b"POST /inference HTTP/1.1\r\nHost: localhost\r\nContent-Type: " + kind + b"\r\nContent-Length: 99\r\n\r\n--end"
    raise_open_file_limit(2_500)
    with contextlib.ExitStack() as clients:
        for _ in range(1_500):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=10))
            client.sendall(begun)
        assert service.post(repository / "samples/coffee.jpg").json()["response"]["class"] == ESPRESSO
