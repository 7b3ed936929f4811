"""The whole service, Celery's tools and Flower as users of Redis and MinIO with the rights of docker-compose.yml.

Redis asks for certificates of both sides.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from support.certificates import make_certificates
from support.limited_users import REDIS_USER, limited_user, redis_rules
from support.redis_nodes import HOST, PASSWORD, QUOTED_PASSWORD, RedisNode, one_redis
from support.service import ROOT, Service, free_port, wait_until

# Services: `make services` installs the redis-server that this starts; the embedded one has no TLS.
pytestmark = [pytest.mark.process, pytest.mark.services]

DB = 2
FLOWER_LOGIN = ("admin", "a password of flower")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisNode]:
    folder = tmp_path_factory.mktemp("redis")
    with one_redis(folder, make_certificates(folder)) as node:
        with node.client() as client:
            client.execute_command("ACL", "SETUSER", REDIS_USER, "on", f">{PASSWORD}", *redis_rules(DB))
        yield node


@pytest.fixture(scope="module")
def secured(node: RedisNode, services_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("secured")
    bucket = f"secured-{uuid.uuid4().hex[:12]}"
    with limited_user(services_env, bucket, bucket) as minio:
        keys = {"access_key": bucket, "secret_key": minio.secret_key.get_secret_value()}
        settings = {
            "models": ["models/digits"],
            "broker": {"url": node.url(db=DB, user=REDIS_USER)},
            "uploads": {"store": "s3", "bucket": bucket, "inline_max_bytes": 0},
            "s3": {"endpoint": minio.endpoint, **keys},
        }
        service = Service(folder, settings)
        try:
            service.start()
            yield service
        finally:
            service.end()


def run(service: Service, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=service.environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_requests_end_and_results_come(secured: Service, repository: Path) -> None:
    picture = repository / "samples/digit_7.png"
    task_id = secured.submit(picture)

    assert secured.post(picture).json()["response"]["class"] == 7
    assert secured.task(task_id, wait_s=30)["status"] == "succeeded"
    results = secured.data_dir / "results.jsonl"
    wait_until(lambda: results.exists() and task_id in results.read_text("utf-8"), timeout_s=20, what="the result is delivered")


def test_celery_finds_the_worker(secured: Service) -> None:
    assert "pong" in run(secured, "-m", "celery", "-A", "tasks", "inspect", "ping", "--timeout", "3")


def test_the_password_is_shown_nowhere(secured: Service) -> None:
    shown = run(secured, "server.py", "check-config", str(secured.config)) + secured.log
    assert "rediss://" in shown
    assert PASSWORD not in shown
    assert QUOTED_PASSWORD not in shown


@contextlib.contextmanager
def flower(service: Service, folder: Path) -> Iterator[str]:
    """Gives its address, once it answers as docker-compose.yml asks it."""
    port = free_port()
    url = f"http://{HOST}:{port}"
    command = [sys.executable, "-m", "celery", "-A", "tasks", "flower", f"--address={HOST}", f"--port={port}"]
    (login := folder / "login").write_text(":".join(FLOWER_LOGIN) + "\n", encoding="utf-8")
    variables = {"FLOWER_BASIC_AUTH_FILE": str(login), "FLOWER_DB": str(folder / "flower")}
    with (folder / "flower.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=service.environment | variables, stdout=log, stderr=log)
    try:
        wait_until(lambda: _answers(f"{url}/healthcheck"), timeout_s=60, what="flower is up")
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _answers(url: str) -> bool:
    with contextlib.suppress(requests.ConnectionError, requests.Timeout):
        return requests.get(url, timeout=5).ok
    return False


def test_flower_asks_for_its_password_and_sees_worker_and_queue(secured: Service, tmp_path: Path) -> None:
    with flower(secured, tmp_path) as url:
        assert requests.get(f"{url}/api/workers", timeout=30).status_code == requests.codes.unauthorized

        def ask(path: str) -> Any:
            answer = requests.get(f"{url}/api/{path}", auth=FLOWER_LOGIN, timeout=30)
            return answer.json() if answer.ok else None

        wait_until(lambda: ask("workers?refresh=1"), timeout_s=30, what="flower knows the worker")
        assert ask("queues/length") == {"active_queues": [{"name": "predict.digits", "messages": 0}]}
    assert PASSWORD not in (log := (tmp_path / "flower.log").read_text("utf-8"))
    assert QUOTED_PASSWORD not in log


def test_every_operation_is_within_the_rights(secured: Service, node: RedisNode, repository: Path) -> None:
    picture = repository / "samples/digit_7.png"
    batch = [("image", (f"{number}.png", picture.read_bytes())) for number in range(3)]
    answer = requests.post(f"{secured.url}/inference/batch", files=batch, timeout=60)
    assert answer.ok, answer.text
    upload = requests.post(f"{secured.url}/uploads", timeout=60).json()
    assert requests.put(upload["url"], data=picture.read_bytes(), headers=upload.get("headers"), timeout=60).ok
    task_id = secured.submit(picture, priority="9", request_id="least")
    assert secured.task(task_id, wait_s=30)["status"] == "succeeded"
    requests.delete(f"{secured.url}/tasks/{secured.submit(picture)}", timeout=60)
    for path in ("/tasks?request_id=least", "/tasks?status=failed", "/status", "/models", "/health/ready"):
        assert requests.get(f"{secured.url}{path}", timeout=60).ok, path
    assert "problem" not in run(secured, "server.py", "status", "--config", str(secured.config)).lower()
    run(secured, "server.py", "dead-letters", "--config", str(secured.config), "list")

    with node.client() as client:
        refused = client.acl_log()
        assert [f"{entry['object']} ({entry['reason']})" for entry in refused if entry["username"] == REDIS_USER] == []
        assert client.acl_dryrun(REDIS_USER, "FLUSHALL") != "OK"
        assert client.acl_dryrun(REDIS_USER, "CONFIG", "GET", "*") != "OK"
        assert client.acl_dryrun(REDIS_USER, "GET", "other:key") != "OK"
