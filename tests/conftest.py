"""Fixtures that every kind of test uses."""

from __future__ import annotations

import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from inference.launcher import embedded_broker
from inference.redis_client import embedded_socket

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A real server of the Redis protocol (the embedded broker's binary), shared by the whole run."""
    with tempfile.TemporaryDirectory(prefix="inf-", dir="/tmp") as folder:  # short: a socket's path is limited
        data_dir = Path(folder)
        server = subprocess.Popen(embedded_broker.command(data_dir))
        try:
            assert embedded_broker.wait_for(data_dir, up=True, timeout_s=10), embedded_broker.log_tail(data_dir)
            yield f"unix://{embedded_socket(data_dir)}?db=0"
        finally:
            server.terminate()
            server.wait(10)


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, socket_timeout=5) as client:
        yield client


@pytest.fixture
def key_prefix() -> str:
    """Keys of one test alone, so that tests share a server."""
    return f"test-{uuid.uuid4().hex[:12]}"
