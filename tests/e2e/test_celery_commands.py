"""Everything that a Celery user types, against a worker on each of the two brokers."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from support.celery_user import CeleryUser
from support.service import ROOT, wait_until

from inference.runtime.redis import broker_url, connect
from inference.settings import load_settings

pytestmark = pytest.mark.process

PREFETCHED = 4
MAX_BATCH_SIZE = 2


@pytest.fixture
def user(celery_user: CeleryUser) -> CeleryUser:
    return celery_user


@contextlib.contextmanager
def predictor_held(user: CeleryUser) -> Iterator[None]:
    predictor = user.parts.predictor("worker")
    predictor.suspend()
    try:
        yield
    finally:
        predictor.resume()


def ids(requests_of_celery: list[dict[str, Any]]) -> set[str]:
    return {request["id"] for request in requests_of_celery}


def test_the_worker_answers_for_itself(user: CeleryUser) -> None:
    assert user.type_inspect("ping") == {"ok": "pong"}
    assert user.type_inspect("registered") == ["tasks.predict"]
    assert [queue["name"] for queue in user.type_inspect("active_queues")] == [user.queue]
    stats = user.type_inspect("stats")
    assert (stats["pool"]["implementation"], stats["prefetch_count"]) == ("celery.concurrency.solo:TaskPool", PREFETCHED)
    assert user.type_inspect("active") == user.type_inspect("reserved") == user.type_inspect("scheduled") == []
    status = user.run("status", "-d", user.node)
    assert f"{user.node}: OK" in status.stdout


def test_its_configuration_is_celerys_and_has_no_secrets(user: CeleryUser) -> None:
    configuration = user.type_inspect("conf")
    assert configuration["worker_pool"] == "solo"
    assert "settings" not in configuration
    report = user.run("inspect", "-d", user.node, "report").stdout
    assert "celery:5" in report
    assert "a-secret-of-a-test" not in report + json.dumps(configuration)
    assert "FromFile" not in report


def test_what_runs_and_what_is_prefetched_is_told(user: CeleryUser) -> None:
    with predictor_held(user):
        task_ids = [user.submit() for _ in range(10)]

        def held() -> tuple[set[str], set[str]] | None:
            active, reserved = ids(user.inspect("active")), ids(user.inspect("reserved"))
            return (active, reserved) if len(active | reserved) == PREFETCHED else None

        active, reserved = wait_until(held, timeout_s=30, what="as many messages as are prefetched")
        assert 1 <= len(active) <= MAX_BATCH_SIZE
        assert len(active | reserved) == len(active) + len(reserved) == PREFETCHED == user.inspect("stats")["prefetch_count"]
        assert active | reserved <= set(task_ids)
        (task_id, *_) = active
        kind, request = user.type_inspect("query_task", task_id)[task_id]
        assert (kind, request["kwargs"]["items"][0]["task_id"]) == ("active", task_id)
    user.wait_for("succeeded", *task_ids)
    assert user.inspect("active") == user.inspect("reserved") == []
    assert user.inspect("stats")["total"]["tasks.predict"] >= len(task_ids)


def test_a_revoked_task_is_canceled_before_it_runs(user: CeleryUser) -> None:
    with user.events() as events:
        with predictor_held(user):
            running = user.submit()
            wait_until(lambda: user.service.task(running)["status"] == "running", timeout_s=20, what="a running task")
            waiting = [user.submit() for _ in range(6)]  # more than are prefetched
            assert "flagged as revoked" in user.type_control("revoke", running, *waiting[:5])["ok"]
            user.wait_for("canceled", *waiting[:5])
            assert user.service.task(running)["status"] == "running"  # as Celery does without terminate
            assert set(waiting[:5]) <= set(user.inspect("revoked"))
        user.wait_for("succeeded", running, waiting[5])
        events.wait("revoked", *waiting[:5])
        events.wait("succeeded", running, waiting[5])
    assert {tuple(events.types(task_id)) for task_id in waiting[:5]} == {("received", "revoked")}
    assert events.types(running) == ["received", "started", "succeeded"]


def test_a_terminated_task_is_canceled_while_it_runs(user: CeleryUser) -> None:
    with user.events() as events:
        with predictor_held(user):
            task_ids = [user.submit() for _ in range(3)]
            wait_until(lambda: user.service.task(task_ids[0])["status"] == "running", timeout_s=20, what="a running task")
            assert "terminated" in user.type_control("terminate", "SIGTERM", *task_ids[:2])["ok"]
            user.wait_for("canceled", *task_ids[:2])
            user.app.control.revoke(task_ids[2], terminate=True, destination=[user.node])
            user.wait_for("canceled", task_ids[2])
        events.wait("revoked", *task_ids)
    assert all(events.of[task_id][-1]["terminated"] for task_id in task_ids)
    assert user.inspect("ping") == {"ok": "pong"}


def test_the_events_of_a_canceled_and_of_an_expired_task(user: CeleryUser) -> None:
    with user.events() as events:
        with predictor_held(user):
            running = user.submit()
            wait_until(lambda: user.service.task(running)["status"] == "running", timeout_s=20, what="a running task")
            canceled, expired = user.submit(), user.submit_with_short_deadline()
            requests.delete(f"{user.service.url}/tasks/{canceled}", timeout=20).raise_for_status()
            user.wait_for("expired", expired)
        events.wait("revoked", canceled)
        events.wait("failed", expired)
    assert "DeadlineExceeded" in events.of[expired][-1]["exception"]


@pytest.mark.parametrize(
    "command",
    [
        ("rate_limit", "tasks.predict", "3/s"),
        ("time_limit", "tasks.predict", "1", "2"),
        ("pool_grow", "2"),
        ("pool_shrink", "1"),
        ("pool_restart",),
        ("autoscale", "4", "2"),
        ("add_consumer", "predict.another-model"),
    ],
    ids=lambda command: command[0],
)
def test_what_has_no_effect_here_is_refused(user: CeleryUser, command: tuple[str, ...]) -> None:
    assert user.type_control(*command).keys() == {"error"}
    user.wait_for("succeeded", user.submit())


def test_a_queue_can_be_left_and_taken_up_again(user: CeleryUser) -> None:
    user.type_control("cancel_consumer", user.queue)
    wait_until(lambda: user.inspect("active_queues") == [], timeout_s=20, what="the queue is left")
    task_id = user.submit()
    assert user.service.task(task_id, wait_s=2)["status"] == "queued"
    user.type_control("add_consumer", user.queue)
    user.wait_for("succeeded", task_id)


def test_a_purge_loses_no_accepted_task(user: CeleryUser) -> None:
    """It takes the messages; the relay sees that they are gone, and queues the tasks again."""
    user.type_control("cancel_consumer", user.queue)
    wait_until(lambda: user.inspect("active_queues") == [], timeout_s=20, what="the queue is left")
    task_ids = [user.submit() for _ in range(3)]
    purged = user.run("purge", "--force", "-Q", user.queue)
    assert "Purged 3 messages" in purged.stdout
    user.type_control("add_consumer", user.queue)
    user.wait_for("succeeded", *task_ids)


def test_events_of_tasks_can_be_switched_off_and_on(user: CeleryUser) -> None:
    with user.events() as events:
        user.type_control("disable_events")
        unseen = user.submit()
        user.wait_for("succeeded", unseen)
        user.type_control("enable_events")
        seen = user.submit()
        events.wait("succeeded", seen)
    assert events.types(unseen) == []


def test_events_are_dumped(user: CeleryUser) -> None:
    command = [sys.executable, "-m", "celery", "-A", "tasks", "events", "--dump"]
    environment = user.service.environment | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as dump:
        assert dump.stdout is not None
        next(line for line in dump.stdout if f"{user.node} " in line)  # it listens
        task_id = user.submit()
        lines = []
        while not lines or f"task succeeded: tasks.predict({task_id})" not in lines[-1]:
            lines.append(dump.stdout.readline())
        dump.terminate()
    assert any(f"task received: tasks.predict({task_id})" in line for line in lines)


@pytest.mark.parametrize("celery_user", ["redis"], indirect=True)
def test_events_go_on_after_a_lost_connection(user: CeleryUser) -> None:
    """Prefetched messages come again, join the held ones, and are reported once they have ended."""
    settings = load_settings(user.service.config)
    with predictor_held(user):
        task_ids = [user.submit() for _ in range(3)]
        wait_until(lambda: len(user.inspect("reserved")) >= 1, timeout_s=20, what="prefetched messages")
        user.hang_up()
        with connect(broker_url(settings)) as broker:
            for kind in ("normal", "pubsub"):
                broker.client_kill_filter(_type=kind, skipme=True)
        wait_until(user.is_there, timeout_s=60, what="the worker is back")
        with user.events() as events:
            user.parts.predictor("worker").resume()
            events.wait("succeeded", *task_ids)
            later = user.submit()
            events.wait("succeeded", later)
    assert events.types(later) == ["received", "started", "succeeded"]
    assert {user.service.task(task_id)["attempts"] for task_id in task_ids} == {1}
    wait_until(lambda: user.inspect("reserved") == user.inspect("active") == [], timeout_s=20, what="nothing is held")
    with connect(broker_url(settings)) as broker:
        wait_until(lambda: broker.hlen("unacked") == 0, timeout_s=20, what="everything is acknowledged")


@pytest.mark.parametrize("celery_user", [pytest.param("rabbitmq", marks=pytest.mark.services)], indirect=True)
def test_a_worker_that_was_killed_starts_again_at_once_under_another_name(user: CeleryUser) -> None:
    """RabbitMQ would refuse the name (405) until it has noticed that the first worker is gone."""

    def nameless() -> list[str]:
        found = user.app.control.inspect(timeout=2).active_queues() or {}
        return [node for node, queues in found.items() if node != user.node and user.queue in [queue["name"] for queue in queues]]

    def start() -> str:
        user.parts.start("nameless", "-m", "celery", "-A", "tasks", "worker", "-Q", user.queue)
        wait_until(nameless, timeout_s=90, what="the worker listens to remote control")
        (name,) = nameless()
        return name

    first = start()
    user.parts.kill("nameless")
    second = start()
    assert first != second
    assert {name.rpartition("-")[0] for name in (first, second)} == {f"celery@{socket.gethostname()}"}
    assert "RESOURCE_LOCKED" not in user.service.log
    user.parts.end("nameless")


def test_a_shutdown_finishes_what_runs(user: CeleryUser) -> None:
    """The command gets no answer: Celery's worker stops before it gives one."""
    leaver = CeleryUser(user.parts, user.parts.start_worker("leaver", user.queue), user.queue)
    wait_until(leaver.is_there, timeout_s=60, what="the second worker")
    user.type_control("cancel_consumer", user.queue)
    wait_until(lambda: user.inspect("active_queues") == [], timeout_s=20, what="the queue is left")
    predictor = user.parts.predictor("leaver")
    predictor.suspend()
    with user.events() as events:
        task_ids = [user.submit() for _ in range(3)]
        wait_until(lambda: user.service.task(task_ids[0])["status"] == "running", timeout_s=20, what="a running task")
        leaver.run("control", "-d", leaver.node, "shutdown")
        predictor.resume()
        assert user.parts.wait("leaver") == 0
        user.type_control("add_consumer", user.queue)
        user.wait_for("succeeded", *task_ids)
        events.wait("succeeded", *task_ids)
    assert user.service.task(task_ids[0])["attempts"] == 1
    assert {event["hostname"] for event in events.of[task_ids[0]]} == {leaver.node}
