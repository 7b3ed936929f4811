"""MinIO hangs: nobody waits for it beyond a deadline, whoever needs no object of it is served, and the two stores agree again."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import requests
from support.client import wait_until
from support.digits import METADATA
from support.parts import Parts
from support.service import ROOT
from support.tcp_proxy import TcpProxy
from support.tenant import Tenant
from support.unsupervised import IMAGE, picture, pids, running_parts, succeeds

pytestmark = [pytest.mark.process, pytest.mark.services, pytest.mark.timeout(600)]

READ_TIMEOUT_S = 4
#: Bound for an answer: the time-out, and what a busy machine needs.
BOUND_S = READ_TIMEOUT_S + 10
BATCH_ITEMS = 60
ORPHAN_AFTER_S = 15
#: Seconds that a request takes beyond its deadline on a machine that has much else to do.
GRACE_S = 4


@pytest.fixture
def minio(services_env: dict[str, str]) -> Iterator[TcpProxy]:
    proxy = TcpProxy(services_env["MINIO_ENDPOINT"].removeprefix("http://"))
    yield proxy
    proxy.cut()


@pytest.fixture
def tenant(services_env: dict[str, str], tmp_path: Path) -> Iterator[Tenant]:
    tenant = Tenant(services_env, tmp_path)
    yield tenant
    tenant.leave()


@pytest.fixture
def on_minio(services_env: dict[str, str], tenant: Tenant, minio: TcpProxy, tmp_path: Path) -> Iterator[Parts]:
    settings = {
        "models": json.loads(tenant.variables["INFERENCE_MODELS"]),
        "broker": {"url": tenant.env["REDIS_URL"]},
        "task_store": {"key_prefix": tenant.name, "lease_s": 2, "requeue_lost_after_s": 1},
        "uploads": {"store": "s3", "bucket": tenant.name},
        "s3": {
            "endpoint": minio.address,
            "access_key": services_env["MINIO_ACCESS_KEY"],
            "secret_key": services_env["MINIO_SECRET_KEY"],
            "read_timeout_s": READ_TIMEOUT_S,
        },
    }
    with running_parts(tmp_path, settings) as parts:
        yield parts
        minio.thaw()


class Requests:
    """Requests that run at the same time; one that is not answered within `timeout_s` has no answer."""

    def __init__(self, parts: Parts, *, timeout_s: float) -> None:
        self.answers: dict[str, requests.Response] = {}
        self._parts = parts
        self._timeout_s = timeout_s
        self._threads: list[threading.Thread] = []

    def begin(self, name: str, *images: bytes, **fields: str) -> None:
        thread = threading.Thread(target=self._post, args=(name, images, fields))
        self._threads.append(thread)
        thread.start()

    def wait(self) -> None:
        for thread in self._threads:
            thread.join(120)

    def _post(self, name: str, images: Sequence[bytes], fields: dict[str, str]) -> None:
        path = "/inference" if len(images) == 1 else "/inference/batch"
        data = fields | ({"metadata": METADATA} if images == (IMAGE,) else {})
        files = [("image", ("image", image)) for image in images]
        with contextlib.suppress(requests.Timeout):
            url = f"{self._parts.url}{path}"
            self.answers[name] = requests.post(url, files=files, data=data, timeout=self._timeout_s)


def test_each_is_answered_within_one_time_out(on_minio: Parts, minio: TcpProxy) -> None:
    assert succeeds(on_minio)
    before, sent = pids(on_minio), Requests(on_minio, timeout_s=BOUND_S)
    minio.freeze()
    sent.begin("batch", *[picture(400)] * BATCH_ITEMS)
    time.sleep(1)
    sent.begin("small", IMAGE)
    sent.wait()
    codes = {name: answer.status_code for name, answer in sent.answers.items()}
    assert codes in ({"batch": 503, "small": 200}, {"batch": 503, "small": 503})
    ready = requests.get(f"{on_minio.url}/health/ready", timeout=60)
    assert ready.status_code == requests.codes.unavailable
    minio.thaw()
    wait_until(lambda: succeeds(on_minio), timeout_s=60, what="a request is served again")
    assert pids(on_minio) == before


def test_deadlines_hold_and_no_image_is_left_over_or_missing(on_minio: Parts, minio: TcpProxy, tenant: Tenant) -> None:
    assert succeeds(on_minio)
    before, sent = pids(on_minio), Requests(on_minio, timeout_s=2 + GRACE_S)
    minio.freeze()
    sent.begin("batch", *[picture(80)] * 256, deadline_s="2")
    sent.begin("large", picture(400), deadline_s="2")
    time.sleep(1)
    sent.begin("small", IMAGE)
    sent.begin("async", IMAGE, mode="async")
    sent.begin("small batch", *[picture(8)] * 3, mode="async")
    sent.wait()
    codes = {name: answer.status_code for name, answer in sent.answers.items()}
    assert codes == {"batch": 503, "large": 503, "small": 200, "async": 202, "small batch": 202}
    wait_until(lambda: tenant.store.count_kept_images() == 5, timeout_s=60, what="the images are kept")
    unstored = on_minio.task(sent.answers["async"].json()["task_id"])
    assert unstored["image_stored"] is False
    command = [sys.executable, "server.py", "status"]
    status = subprocess.run(command, cwd=ROOT, env=on_minio.environment, capture_output=True, text=True, check=False)
    assert "5 images wait for the object store" in status.stdout
    minio.thaw()
    wait_until(lambda: tenant.store.count_kept_images() == 0, timeout_s=60, what="the images are stored")
    assert "image_stored" not in on_minio.task(unstored["task_id"])
    wait_until(lambda: succeeds(on_minio), timeout_s=60, what="the API asks the object store again")
    tenant.delete_orphans(tenant.store, ORPHAN_AFTER_S)
    assert len(tenant.uploads()) == 7
    assert pids(on_minio) == before
