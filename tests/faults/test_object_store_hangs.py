"""MinIO hangs: nobody waits for it longer than one time-out, and who needs no object of it gets a result."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image
from support.client import wait_until
from support.digits import METADATA
from support.parts import Parts
from support.tcp_proxy import TcpProxy
from support.tenant import Tenant
from support.unsupervised import IMAGE, pids, running_parts, succeeds

pytestmark = [pytest.mark.process, pytest.mark.services, pytest.mark.timeout(600)]

READ_TIMEOUT_S = 4
#: Bound for an answer: the time-out, and what a busy machine needs.
BOUND_S = READ_TIMEOUT_S + 10
BATCH_ITEMS = 60


def large_picture() -> bytes:
    """A PNG that is too large to travel with its record."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def minio(services_env: dict[str, str]) -> Iterator[TcpProxy]:
    proxy = TcpProxy(services_env["MINIO_ENDPOINT"].removeprefix("http://"))
    yield proxy
    proxy.cut()


@pytest.fixture
def on_minio(services_env: dict[str, str], minio: TcpProxy, tmp_path: Path) -> Iterator[Parts]:
    tenant = Tenant(services_env, tmp_path)
    settings = {
        "models": json.loads(tenant.variables["INFERENCE_MODELS"]),
        "broker": {"url": tenant.env["REDIS_URL"]},
        "task_store": {"key_prefix": tenant.name, "lease_s": 2, "lost_grace_s": 1},
        "uploads": {"store": "minio", "bucket": tenant.name},
        "minio": {
            "endpoint": minio.address,
            "access_key": services_env["MINIO_ACCESS_KEY"],
            "secret_key": services_env["MINIO_SECRET_KEY"],
            "read_timeout_s": READ_TIMEOUT_S,
        },
    }
    try:
        with running_parts(tmp_path, settings) as parts:
            yield parts
            minio.thaw()
    finally:
        tenant.leave()


def test_each_is_answered_within_one_time_out(on_minio: Parts, minio: TcpProxy) -> None:
    assert succeeds(on_minio)
    before, picture = pids(on_minio), large_picture()
    answers: dict[str, tuple[int, float]] = {}

    def post(name: str, path: str, *images: bytes) -> None:
        began = time.monotonic()
        files = [("image", ("image", image)) for image in images]
        data = {"metadata": METADATA} if len(images) == 1 else {}
        answer = requests.post(f"{on_minio.url}{path}", files=files, data=data, timeout=120)
        answers[name] = answer.status_code, time.monotonic() - began

    minio.freeze()
    batch = threading.Thread(target=post, args=("batch", "/inference/batch", *[picture] * BATCH_ITEMS))
    batch.start()
    time.sleep(1)
    small = threading.Thread(target=post, args=("small", "/inference", IMAGE))
    small.start()
    for thread in (batch, small):
        thread.join(120)
    assert answers["batch"][0] == requests.codes.unavailable
    assert answers["small"][0] in (200, 503)
    assert max(seconds for _, seconds in answers.values()) < BOUND_S, answers
    ready = requests.get(f"{on_minio.url}/health/ready", timeout=60)
    assert ready.status_code == requests.codes.unavailable
    minio.thaw()
    wait_until(lambda: succeeds(on_minio), timeout_s=60, what="a request is served again")
    assert pids(on_minio) == before
