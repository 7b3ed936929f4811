"""kill -9 in the middle of a batch: every item ends once, and reaches the sink once."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
import requests
from sklearn.datasets import load_digits
from support.file_sink import file_documents
from support.service import Service, wait_until

pytestmark = pytest.mark.process

#: Several messages, several batches of the model: it takes 8 at a time here.
COUNT = 32
METADATA = json.dumps({"shape": [8, 8, 1], "dtype": "float32"})


def submit(service: Service) -> str:
    """Gives the batch's path."""
    pixels = (load_digits().images[:COUNT] * (255 / 16)).astype("<f4")
    files = [("image", ("image", image.tobytes())) for image in pixels]
    response = requests.post(
        f"{service.url}/inference/batch",
        files=files,
        data={"metadata": METADATA},
        headers={"Prefer": "respond-async"},
        timeout=60,
    )
    assert response.status_code == requests.codes.accepted, response.text
    return response.headers["Location"]


def batch(service: Service, path: str, *, wait_s: float = 0) -> dict[str, Any]:
    document: dict[str, Any] = requests.get(service.url + path, params={"wait": wait_s}, timeout=90).json()
    return document


@pytest.mark.parametrize("parts", [("worker",), ("predictor",), ("worker", "predictor", "relay", "api", "broker")], ids="+".join)
def test_every_item_ends_once(service: Service, parts: tuple[str, ...]) -> None:
    service.suspend_predictor()
    path = submit(service)
    wait_until(lambda: batch(service, path)["counts"]["running"], timeout_s=20, what="a part of the batch is running")

    for part in parts:
        service.kill(part)
    service.wait_ready()

    ended = wait_until(lambda: _if_ended(batch(service, path, wait_s=10)), timeout_s=90, what="the batch has ended")
    assert [item["status"] for item in ended["items"]] == ["succeeded"] * COUNT
    assert np.mean([item["result"]["class"] for item in ended["items"]] == load_digits().target[:COUNT]) > 0.9
    task_ids = [item["task_id"] for item in ended["items"]]
    delivered = wait_until(lambda: _deliveries(service, task_ids), timeout_s=60, what="every result is delivered")
    assert set(delivered.values()) == {1}
    assert {service.task(task_id)["attempts"] for task_id in task_ids} <= {1, 2}


def _if_ended(document: dict[str, Any]) -> dict[str, Any] | None:
    return document if document["status"] == "ended" else None


def _deliveries(service: Service, task_ids: list[str]) -> Counter[str] | None:
    """Return how often each is in the sink, once all are."""
    delivered = [document["task_id"] for document in file_documents(service.data_dir)]
    found = Counter(task_id for task_id in delivered if task_id in task_ids)
    return found if len(found) == len(task_ids) else None
