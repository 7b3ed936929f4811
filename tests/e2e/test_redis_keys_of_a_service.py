"""Every key of a running service, the broker's too, has a row in docs/redis-keys.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import redis
from support.redis_keys import undocumented
from support.service import Service

from inference.runtime.redis import embedded_socket

pytestmark = pytest.mark.process


def test_keys_of_a_service_at_work(service: Service, repository: Path) -> None:
    photo = repository / "samples/coffee.jpg"
    service.post(photo, request_id="keys", priority="5", headers={"Idempotency-Key": "keys"})
    service.submit(photo)
    inspect = [sys.executable, "-m", "celery", "-A", "tasks", "inspect", "ping"]
    subprocess.run(inspect, cwd=repository, env=service.environment, capture_output=True, check=True, timeout=60)

    with redis.Redis.from_url(f"unix://{embedded_socket(service.data_dir)}?db=0") as client:
        assert client.dbsize() > 10
        assert undocumented(client, "inference") == []
