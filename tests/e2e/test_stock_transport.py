"""The service with `broker.transport: stock`: kombu's own transport takes the messages, and nothing is lost or done twice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from sklearn.datasets import load_digits
from support.certificates import make_certificates
from support.digits import METADATA
from support.file_sink import file_documents
from support.redis_nodes import one_redis
from support.service import ROOT, Service, wait_until
from support.unsupervised import SHORT_LEASES

from inference.broker.redis import wake_up_key
from inference.runtime.redis import broker_url, connect
from inference.settings import load_settings

pytestmark = pytest.mark.process

#: More than a batch of 8, so that a killed worker held messages whose tasks were not leased.
COUNT = 20


@pytest.fixture(scope="module")
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Service on the embedded server, on one with a password, and on one with TLS."""
    folder: Path = tmp_path_factory.mktemp("stock")
    with ExitStack() as stack:
        url = "embedded"
        if request.param != "unix":
            certificates = make_certificates(folder) if request.param == "rediss" else None
            url = stack.enter_context(one_redis(folder, certificates)).url(db=2)
        service = Service(folder, SHORT_LEASES | {"broker": {"url": url, "transport": "stock"}})
        stack.callback(service.end)
        service.start()
        yield service


def pixels(number: int) -> bytes:
    return bytes((load_digits().images[number] * (255 / 16)).astype("<f4").tobytes())


def assert_right(results: Iterable[Any]) -> None:
    """Check the results of the first `COUNT` images."""
    assert np.mean([result["class"] for result in results] == load_digits().target[:COUNT]) > 0.9


@pytest.mark.parametrize("service", ["unix", "redis", pytest.param("rediss", marks=pytest.mark.services)], indirect=True)
def test_a_prediction_and_a_batch_succeed(service: Service) -> None:
    assert service.post(pixels(0), metadata=METADATA).json()["response"]["class"] == 0
    files = [("image", ("image", pixels(number))) for number in range(COUNT)]
    answer = requests.post(f"{service.url}/inference/batch", files=files, data={"metadata": METADATA}, timeout=60)
    assert_right(item["result"] for item in answer.json()["items"])
    with connect(broker_url(load_settings(service.config))) as client:
        assert client.llen(wake_up_key("predict.digits")) == 1, "a worker that claims has taken it"
        wait_until(lambda: client.hlen("unacked") == 0, timeout_s=60, what="all messages are acknowledged")


@pytest.mark.parametrize("service", ["unix"], indirect=True)
def test_what_a_killed_worker_held_succeeds_once(service: Service) -> None:
    service.suspend_predictor()
    task_ids = [service.submit(pixels(number), metadata=METADATA) for number in range(COUNT)]
    wait_until(
        lambda: any(service.task(task_id)["status"] == "running" for task_id in task_ids), timeout_s=20, what="a batch is running"
    )

    service.kill("worker")

    tasks = [service.task(task_id, wait_s=60) for task_id in task_ids]
    assert [task["status"] for task in tasks] == ["succeeded"] * COUNT
    assert_right(task["result"] for task in tasks)
    assert {task["attempts"] for task in tasks} == {1, 2}
    delivered = wait_until(lambda: deliveries(service, task_ids), timeout_s=30, what="every result is delivered")
    assert delivered == {1}


def deliveries(service: Service, task_ids: list[str]) -> set[int] | None:
    """Return how often each is in the sink, once all are."""
    delivered = [document["task_id"] for document in file_documents(service.data_dir)]
    counts = Counter(task_id for task_id in delivered if task_id in task_ids)
    return set(counts.values()) if len(counts) == len(task_ids) else None


def test_it_works_without_ours() -> None:
    """A kombu upgrade may break even the import."""
    code = "import sys; sys.modules['tasks.transport.claiming'] = None; import tasks.app"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"INFERENCE_BROKER__TRANSPORT": "stock"}, check=True)
