"""Many images in one request, through the queue."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import requests
from sklearn.datasets import load_digits
from support.service import Service, wait_until

pytestmark = pytest.mark.process

COUNT = 32
DIGITS = {"shape": [8, 8, 1], "dtype": "float32", "model": "digits"}


def pixels(number: int) -> bytes:
    return bytes((load_digits().images[number] * (255 / 16)).astype("<f4").tobytes())


def post(service: Service, images: list[bytes], metadata: Any = None, **options: Any) -> requests.Response:
    data = {} if metadata is None else {"metadata": json.dumps(metadata)}
    files = [("image", (f"image-{number}", image)) for number, image in enumerate(images)]
    return requests.post(f"{service.url}/inference/batch", files=files, data=data, timeout=120, **options)


def get(service: Service, url: str, *, wait_s: float = 0) -> dict[str, Any]:
    response = requests.get(service.url + url, params={"wait": wait_s}, timeout=90)
    assert response.status_code == requests.codes.ok, response.text
    document: dict[str, Any] = response.json()
    return document


def test_32_digits_in_one_request(service: Service) -> None:
    response = post(service, [pixels(number) for number in range(COUNT)], DIGITS)

    assert response.status_code == requests.codes.ok, response.text
    items = response.json()["items"]
    assert [item["status"] for item in items] == ["succeeded"] * COUNT
    assert np.mean([item["result"]["class"] for item in items] == load_digits().target[:COUNT]) > 0.95
    alone = service.post(pixels(5), metadata=json.dumps(DIGITS)).json()["response"]["prediction"]
    np.testing.assert_allclose(items[5]["result"]["prediction"], alone, atol=1e-5)
    task = service.task(items[5]["task_id"])
    assert task["batch_id"] == response.json()["batch_id"]
    assert task["batch_size"] > 1


def test_32_photos_in_one_request(service: Service, repository: Path) -> None:
    photos = [(repository / f"samples/{name}.jpg").read_bytes() for name in ("coffee", "chelsea")] * (COUNT // 2)

    response = post(service, photos)

    assert response.status_code == requests.codes.ok, response.text
    labels = [item["result"]["label"] for item in response.json()["items"]]
    assert labels[::2] == ["espresso"] * (COUNT // 2)
    assert all("cat" in label for label in labels[1::2])


def test_good_and_bad_images_of_two_models_later(service: Service, repository: Path) -> None:
    coffee = (repository / "samples/coffee.jpg").read_bytes()
    images = [coffee, pixels(0), coffee[: len(coffee) // 3] + bytes(200), b"GIF89a" + bytes(50), pixels(1)]
    metadata = [{}, DIGITS, {}, {}, DIGITS | {"model": "nobody"}]

    response = post(service, images, metadata, headers={"Prefer": "respond-async"})

    assert response.status_code == requests.codes.accepted
    url = response.headers["Location"]
    ended = get(service, url, wait_s=60)
    assert ended["status"] == "ended"
    assert [item["status"] for item in ended["items"]] == ["succeeded", "succeeded", "failed", "refused", "refused"]
    assert {status: count for status, count in ended["counts"].items() if count} == {"succeeded": 2, "failed": 1, "refused": 2}
    assert [item["error"]["code"] for item in ended["items"][2:]] == [
        "invalid_image",
        "unsupported_image_type",
        "model_not_found",
    ]
    assert ended["items"][0]["result"]["label"] == "espresso"
    assert ended["items"][1]["model"]["name"] == "digits"


def test_every_item_reaches_the_sink_once(service: Service) -> None:
    body = post(service, [pixels(number) for number in range(COUNT)], DIGITS).json()
    task_ids = [item["task_id"] for item in body["items"]]

    def delivered() -> bool:
        tasks = [service.task(task_id) for task_id in task_ids]
        return all(task["deliveries"] == [{"sink": "jsonl", "status": "delivered"}] for task in tasks)

    wait_until(delivered, timeout_s=30, what="every result is delivered")
    lines = (service.data_dir / "results.jsonl").read_bytes().splitlines()
    found = [document["task_id"] for document in map(orjson.loads, lines) if document["task_id"] in set(task_ids)]
    assert sorted(found) == sorted(task_ids)


def test_canceling_leaves_what_had_ended(service: Service) -> None:
    service.suspend_predictor()
    try:
        response = post(service, [pixels(number) for number in range(COUNT)], DIGITS, headers={"Prefer": "respond-async"})
        url = response.headers["Location"]
        canceled = requests.delete(service.url + url, timeout=30).json()
    finally:
        for predictor in service.processes("predictor"):
            predictor.resume()

    assert canceled["status"] == "ended"
    assert canceled["counts"]["canceled"] == COUNT
    assert get(service, url) == canceled
    again = requests.delete(service.url + url, timeout=30)
    assert again.status_code == requests.codes.conflict
    assert again.json()["code"] == "task_already_finished"


def test_the_same_key_gives_the_same_batch(service: Service) -> None:
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    images = [pixels(number) for number in range(4)]

    first, again = (post(service, images, DIGITS, headers=headers) for _ in range(2))
    other = post(service, images[::-1], DIGITS, headers=headers)

    assert again.json() == first.json()
    assert again.headers["Idempotent-Replayed"] == "true"
    assert other.status_code == requests.codes.conflict
    assert other.json()["batch_id"] == first.json()["batch_id"]


def test_images_that_are_in_the_store_already(service: Service, repository: Path) -> None:
    folder = service.data_dir / "uploads/photos"
    folder.mkdir(parents=True)
    (folder / "coffee.jpg").write_bytes((repository / "samples/coffee.jpg").read_bytes())
    items = [{"object": "s3://inference/photos/coffee.jpg"}, {"object": "s3://inference/photos/nobody.jpg"}]

    response = requests.post(f"{service.url}/inference/batch", json={"items": items}, timeout=60)

    assert response.status_code == requests.codes.ok, response.text
    found, missing = response.json()["items"]
    assert found["result"]["label"] == "espresso"
    assert (missing["status"], missing["error"]["code"]) == ("refused", "object_not_found")
