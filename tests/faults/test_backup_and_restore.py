"""A backup under load, the loss of everything, and the restore, with the commands that docs/backup.md prints."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
import requests
from redis.backoff import NoBackoff
from redis.retry import Retry
from support.client import free_port
from support.digits import METADATA
from support.samples import a_request
from support.service import ROOT, Service, wait_until
from support.steady_load import SteadyLoad, wait_delivered
from support.unsupervised import IMAGE, SHORT_LEASES

from inference.domain import TaskStatus
from inference.runtime.redis import embedded_socket
from inference.task_store import LeaseState
from inference.task_store.redis_store import RedisTaskStore, StorePolicy

pytestmark = [pytest.mark.process, pytest.mark.timeout(400)]

_FENCED = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    """Return the code blocks of a page, in order."""
    return _FENCED.findall((ROOT / page).read_text(encoding="utf-8"))


def run(command: str, cwd: Path, **variables: str) -> str:
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(cwd), **variables}
    done = subprocess.run(
        ["bash", "-ec", command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def damaged(tmp_path: Path) -> Iterator[Service]:
    """A service of a test alone, whose data is lost."""
    running = Service(tmp_path, SHORT_LEASES)
    try:
        running.start()
        yield running
    finally:
        running.end()


def test_restore_of_a_backup_that_was_taken_under_load(damaged: Service, tmp_path: Path) -> None:
    take, restore, *_ = (code.replace("/backups/2026-11-29", str(tmp_path / "backup")) for code in commands("docs/backup.md"))
    with SteadyLoad(damaged) as load:
        load.wait_more(10)
        wait_delivered(damaged, load.accepted[:10])
        damaged.suspend_predictor()  # the backup has tasks that wait, and a batch that runs
        wait_until(lambda: is_running(damaged, load.accepted), timeout_s=30, what="a batch is running")
        load.wait_more(20)
        before = load.accepted[:]
        run(take.replace("python", sys.executable, 1), ROOT, INFERENCE_CONFIG=str(damaged.config))
        for predictor in damaged.processes("predictor"):
            predictor.resume()
        load.wait_more(10)
        wait_delivered(damaged, load.accepted[:])

    damaged.kill("broker")  # and everything else: nothing is drained
    assert damaged.process is not None
    damaged.process.kill()
    damaged.process.wait()
    wait_until(lambda: not damaged.survivors(), timeout_s=60, what="every process has ended")
    run(restore, tmp_path)
    shutil.rmtree(tmp_path / "data.before")
    damaged.start()

    tasks = wait_delivered(damaged, before)
    assert max(task["attempts"] for task in tasks) == 2  # that of the batch that ran
    results = [orjson.loads(line) for line in (damaged.data_dir / "results.jsonl").read_bytes().splitlines()]
    by_task = {result["task_id"]: result for result in results}  # as docs/backup.md says: duplicates are dropped by task_id
    assert set(before) <= by_task.keys()
    for task in tasks:
        assert by_task[task["task_id"]]["class"] == task["result"]["class"]
    later = [task_id for task_id in load.accepted if task_id not in before]
    assert {requests.get(f"{damaged.url}/tasks/{task_id}", timeout=30).status_code for task_id in later[-5:]} == {404}
    assert damaged.post(IMAGE, metadata=METADATA).status_code == 200
    assert_nothing_is_left(damaged)


def is_running(service: Service, task_ids: list[str]) -> bool:
    return any(service.task(task_id)["status"] == "running" for task_id in task_ids[-40:])


def assert_nothing_is_left(service: Service) -> None:
    """Nothing waits, no lease and no message of a worker that is gone is left, and `status` finds no problem."""
    with redis.Redis(unix_socket_path=str(embedded_socket(service.data_dir))) as client:

        def left() -> dict[str, Any]:
            sizes = {
                "waiting": client.zcard("inference:waiting:predict.digits"),
                "running": client.scard("inference:running:predict.digits"),
                "leases": client.zcard("inference:leases"),
                "deadlines": client.zcard("inference:deadlines"),
                "outbox": client.xlen("inference:outbox:jsonl"),
                "inline images": int(client.get("inference:inline-bytes") or 0),  # type: ignore[arg-type]
            }
            return {name: size for name, size in sizes.items() if size}

        wait_until(lambda: not left(), timeout_s=30, what="nothing is left")
    command = [sys.executable, "server.py", "status", "--json"]
    done = subprocess.run(command, cwd=ROOT, env=service.environment, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert (done.returncode, found["problems"], found["dead_letters"]) == (0, [], 0)


@pytest.fixture
def address() -> str:
    return f"redis://127.0.0.1:{free_port()}/0"


@contextmanager
def redis_server(address: str, command: str, folder: Path) -> Iterator[redis.Redis]:
    """A server of one's own, started by a shell command and killed at the end."""
    port = address.rpartition(":")[2].removesuffix("/0")
    config = folder / "redis.conf"
    config.write_text(f"port {port}\nbind 127.0.0.1\nsave ''\n")
    variables = {"PATH": "/usr/local/bin:/usr/bin:/bin", "CONFIG": str(config), "FOLDER": str(folder)}
    process = subprocess.Popen(["bash", "-ec", f"exec {command}"], cwd=folder, env=variables, stdout=subprocess.DEVNULL)
    try:
        with redis.Redis.from_url(address, retry=Retry(NoBackoff(), 0)) as client:
            wait_until(lambda: answers(client), timeout_s=30, what="the server answers")
            yield client
    finally:
        process.kill()
        process.wait()


def answers(client: redis.Redis) -> bool:
    with suppress(redis.ConnectionError, redis.BusyLoadingError):
        return bool(client.ping())
    return False


@pytest.mark.services
@pytest.mark.usefixtures("services_env")  # which installs Redis
def test_redis_of_ones_own(tmp_path: Path, address: str) -> None:
    _, _, take, restore = commands("docs/backup.md")
    start, _, write_log = restore.partition("\n")
    policy = StorePolicy("inference", lease_s=10, result_ttl_s=600, idempotency_ttl_s=600)
    for name in ("old", "new"):
        (tmp_path / name).mkdir()

    with redis_server(address, 'redis-server "$CONFIG" --appendonly yes', tmp_path / "old") as client:
        store = RedisTaskStore(client, policy)
        ids = [store.accept(a_request(image=b"inline"), enqueue=None, max_queue_depth=0).task_id for _ in range(20)]
        store.lease("a worker that is gone", ids[:5])
        run(take, tmp_path / "new", REDIS_URL=address)
        later = store.accept(a_request(), enqueue=None, max_queue_depth=0).task_id
    with redis_server(address, start, tmp_path / "new") as client:
        assert RedisTaskStore(client, policy).get_many(ids[:1]) != [None]
        run(write_log, tmp_path, REDIS_URL=address)
    with redis_server(address, 'redis-server "$CONFIG" --appendonly yes', tmp_path / "new") as client:
        store = RedisTaskStore(client, policy)
        assert [record and record.status for record in store.get_many(ids)] == [TaskStatus.QUEUED] * 20
        assert store.get_many([later]) == [None]
        leases = store.lease("another worker", ids).leases
        assert [lease.state for lease in leases] == [LeaseState.HELD] * 5 + [LeaseState.LEASED] * 15
        assert {store.get_image(task_id) for task_id in ids} == {b"inline"}
