"""A Redis that is full takes no writes; it can still be asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from support.redis_server import own_redis_server
from support.samples import a_request

from inference.container import Services
from inference.settings import load_settings
from inference.status.collect import status_of

QUEUE = "predict.digits"


@pytest.fixture
def full(tmp_path: Path) -> Iterator[tuple[Services, str]]:
    """A service whose record store is full, and a task that waits."""
    with own_redis_server() as server, redis.Redis.from_url(server.url) as client:
        given = {"data_dir": tmp_path, "models": ["models/digits"], "broker": {"url": server.url}}
        services = Services(load_settings(None, given))
        task_id = services.store.accept(a_request(queue=QUEUE), enqueue=None, max_queue_depth=0).task_id
        services.store.get_queue_load(QUEUE, refused=3)
        client.config_set("maxmemory", 1)
        yield services, task_id


def test_the_place_of_a_task_can_be_asked_for(full: tuple[Services, str]) -> None:
    services, task_id = full
    assert services.store.get_places({QUEUE: [task_id]})[task_id].position == 0
    assert services.store.get_queue_stats(QUEUE).depth == 1
    assert 0 < services.store.get_queue_load(QUEUE).returning <= 3


def test_status_says_it(full: tuple[Services, str]) -> None:
    assert [problem for problem in status_of(full[0]).problems if problem.startswith("the task store is nearly full")]
