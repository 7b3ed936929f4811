"""A message that ends each worker that takes it is given up after a few; its neighbours, which come again as often, are not."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from kombu import Connection
from support.client import wait_until
from support.parts import Parts
from support.tenant import Tenant
from support.unsupervised import SHORT_LEASES

from inference.container import Services
from inference.domain import ImageFormat, ImageHeader, QueueItem, TaskStatus, TaskSubmission
from inference.lifecycle.enqueue import accept
from inference.models.registry import reference
from inference.relay.sweeper import Sweeper, SweepPolicy
from inference.runtime.redis import kombu_url
from inference.settings import load_settings

pytestmark = [pytest.mark.process, pytest.mark.services, pytest.mark.timeout(600)]

NEIGHBOURS = 4


class Queue:
    """A service without a worker, whose tasks are accepted as its API does it."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.settings = load_settings(parts.config)
        self.services = Services(self.settings)
        (self._spec,) = self.services.models
        self.name = self._spec.queue
        self._sweeper = Sweeper(
            self.services.store,
            self.services.broker,
            self.services.objects,
            holder="sweeper",
            queues=[self.name],
            policy=SweepPolicy(requeue_lost_after_s=self.settings.task_store.requeue_lost_after_s),
        )

    def accept(self, task_id: str) -> str:
        key = f"uploads/{task_id}"
        self.services.objects.put(key, np.zeros((8, 8, 1), "<f4").tobytes())
        item = QueueItem(task_id, key, ImageHeader(ImageFormat.RAW, (8, 8, 1), "<f4"))
        request = TaskSubmission(task_id, task_id, reference(self._spec), self.name, item, deadline_s=600)
        accept(self.services.store, self.services.broker, request)
        return task_id

    def send(self, task_id: str) -> str:
        """Send a message like a plain Celery client: there is no record yet."""
        self.services.objects.put("uploads/zero", np.zeros((8, 8, 1), "<f4").tobytes())
        item = {"object": "uploads/zero", "shape": [8, 8, 1], "dtype": "<f4"}
        with Connection(kombu_url(self.settings)) as connection, connection.Producer() as producer:
            headers = {"id": task_id, "task": "tasks.predict"}
            body = [[], {"items": [item]}, {}]
            producer.publish(body, exchange="", routing_key=self.name, headers=headers, serializer="json", retry=True)
        return task_id

    def requeue_lost(self) -> None:
        """Run one pass of the relay's sweeper."""
        self._sweeper.sweep_once()

    def status(self, task_id: str) -> TaskStatus | None:
        (record,) = self.services.store.get_many([task_id])
        return record.status if record else None

    def are_ended(self, *task_ids: str) -> bool:
        return all(status not in {None, TaskStatus.QUEUED, TaskStatus.RUNNING} for status in map(self.status, task_ids))

    def run_worker_until_it_dies_or(self, condition: Callable[[], Any]) -> bool:
        """Start a worker; return whether a message killed it."""
        options = ("-A", "tasks", "worker", "--without-gossip", "--without-mingle")
        self.parts.start("worker", "tests/support/dying_worker.py", *options, PYTHONPATH=".")
        wait_until(lambda: not self.parts.runs("worker") or condition(), timeout_s=90, what="the end of the worker")
        is_dead = not self.parts.runs("worker")
        if is_dead:
            self.parts.wait_killed("worker")
        return is_dead

    def unacknowledged(self) -> int:
        """Messages that the queue has once every worker has left."""
        with contextlib.suppress(KeyError):
            self.parts.stop("worker")
        return self.services.broker.get_depth(self.name)


@contextlib.contextmanager
def queue_on(broker: str, services_env: dict[str, str], tmp_path: Path) -> Iterator[Queue]:
    """Set up a queue on the broker of a variable of `services_env`."""
    tenant = Tenant(services_env, tmp_path)
    settings: dict[str, Any] = SHORT_LEASES | {
        "data_dir": str(tmp_path / "data"),
        "models": json.loads(tenant.variables["INFERENCE_MODELS"]),
        "broker": {"url": tenant.env[broker]},
        "task_store": SHORT_LEASES["task_store"] | {"url": tenant.env["REDIS_URL"], "key_prefix": tenant.name},
    }
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    parts = Parts(tmp_path, config, {})
    try:
        yield Queue(parts)
    finally:
        parts.stop_all()
        tenant.leave()


@pytest.fixture
def queue(services_env: dict[str, str], tmp_path: Path) -> Iterator[Queue]:
    with queue_on("AMQP_URL", services_env, tmp_path) as queue:
        yield queue


@pytest.fixture
def redis_queue(services_env: dict[str, str], tmp_path: Path) -> Iterator[Queue]:
    with queue_on("REDIS_URL", services_env, tmp_path) as queue:
        yield queue


def test_it_is_given_up_and_its_neighbours_succeed(queue: Queue) -> None:
    killer, stranger = queue.accept(f"killer-{uuid.uuid4().hex}"), queue.send(f"killer-{uuid.uuid4().hex}")
    neighbours = [queue.accept(uuid.uuid4().hex) for _ in range(NEIGHBOURS)]
    # Workers that ended before: to start them would take long.
    for task_id, earlier in ((killer, ("one", "two")), (stranger, ("one", "two", "three"))):
        for worker in earlier:
            queue.services.taken.take(task_id, worker)

    deaths = 0
    while queue.run_worker_until_it_dies_or(lambda: queue.are_ended(killer, *neighbours) and queue.services.rejected.count()):
        deaths += 1
    assert deaths == 2  # the first with all messages in hand, for which none is blamed

    assert {queue.status(task_id) for task_id in neighbours} == {TaskStatus.SUCCEEDED}
    assert_is_dead_letter(queue, killer)
    (message,) = queue.services.rejected.list(10)
    assert (message.reason, message.content["headers"]["id"]) == ("3 workers ended while they took it", stranger)
    wait_until(lambda: queue.unacknowledged() == 0, timeout_s=60, what="the messages are gone")


def test_on_redis_the_messages_that_the_sweeper_sends_in_its_place_count_too(redis_queue: Queue) -> None:
    """The dead worker's message is returned an hour later; until then the sweeper finds a waiting task without a message."""
    queue = redis_queue
    killer = queue.accept(f"killer-{uuid.uuid4().hex}")
    neighbours = [queue.accept(uuid.uuid4().hex) for _ in range(NEIGHBOURS)]
    queue.services.taken.take(killer, "a worker that ended before")

    def is_over() -> bool:
        queue.requeue_lost()
        return queue.are_ended(killer, *neighbours)

    deaths = 0
    while deaths < 4 and queue.run_worker_until_it_dies_or(is_over):
        deaths += 1
    assert deaths == 3  # the first with all messages in hand, for which none is blamed

    assert {queue.status(task_id) for task_id in neighbours} == {TaskStatus.SUCCEEDED}
    assert_is_dead_letter(queue, killer)
    wait_until(
        lambda: queue.services.broker.get_depth(queue.name) == 0, timeout_s=30, what="copies of the messages are taken too"
    )


def assert_is_dead_letter(queue: Queue, killer: str) -> None:
    record = queue.services.store.get(killer)
    assert record.outcome is not None
    assert record.outcome.error is not None
    assert (record.status, record.outcome.error["code"]) == (TaskStatus.FAILED, "predictor_died")
    assert "3 workers ended while they took it" in record.outcome.error["detail"]
    assert queue.services.store.list_dead_letters(10) == [killer]
