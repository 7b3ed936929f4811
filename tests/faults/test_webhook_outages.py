"""A receiver that is down and a relay that is killed: every event arrives, under one id, and results wait for nobody."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import orjson
import pytest
from standardwebhooks import Webhook as Verifier
from support.client import free_port
from support.receiver import Received, Receiver, Reply
from support.service import Service, wait_until
from support.unsupervised import IMAGE, SHORT_LEASES

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]

SECRET = f"whsec_{b64encode(bytes(range(32))).decode()}"
OPTIONS = {"shape": "8,8,1", "dtype": "float32"}
COUNT = 40


@pytest.fixture(scope="module")
def port() -> int:
    """The receiver's port, on which nothing listens at first."""
    return free_port()


@pytest.fixture(scope="module")
def hooked(port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    allowed = {"allow_http": True, "ports": [port], "private_networks": ["127.0.0.0/8"]}
    short = {"timeout_s": 1, "connect_timeout_s": 1, "backoff_s": 0.2, "max_backoff_s": 1, "max_per_receiver": 2}
    webhooks = {"secret": SECRET} | allowed | short
    running = Service(tmp_path_factory.mktemp("webhooks"), SHORT_LEASES | {"webhooks": webhooks})
    try:
        running.start()
        yield running
    finally:
        running.end()


def submit(service: Service, port: int) -> list[str]:
    return [service.submit(IMAGE, webhook=f"http://127.0.0.1:{port}/", **OPTIONS) for _ in range(COUNT)]


def webhook_states(service: Service, task_ids: list[str]) -> set[str]:
    return {service.task(task_id)["webhook"]["status"] for task_id in task_ids}


def all_delivered(service: Service, task_ids: list[str]) -> bool:
    return webhook_states(service, task_ids) == {"delivered"}


def assert_each_arrived_under_one_id(receiver: Receiver, task_ids: list[str]) -> None:
    bodies: dict[str, bytes] = {}
    for request in receiver.received:
        event = Verifier(SECRET).verify(request.body, dict(request.headers))
        assert request.headers["webhook-id"] == f"msg_{event['data']['task_id']}"
        assert bodies.setdefault(request.headers["webhook-id"], request.body) == request.body
    assert {f"msg_{task_id}" for task_id in task_ids} <= bodies.keys()
    assert {orjson.loads(body)["type"] for body in bodies.values()} == {"task.succeeded"}


def test_events_wait_for_a_receiver_that_is_down_and_survive_the_kill_of_the_relay(hooked: Service, port: int) -> None:
    task_ids = submit(hooked, port)

    def results_are_delivered() -> bool:
        tasks = [hooked.task(task_id) for task_id in task_ids]
        return all(task["deliveries"] == [{"sink": "jsonl", "status": "delivered"}] for task in tasks)

    wait_until(results_are_delivered, timeout_s=60, what="the results do not wait for the receiver")
    assert webhook_states(hooked, task_ids) == {"pending"}

    def was_tried() -> bool:
        return any(hooked.task(task_id)["webhook"]["attempts"] for task_id in task_ids)

    wait_until(was_tried, timeout_s=30, what="an attempt is in the log")
    hooked.kill("relay")
    receiver = Receiver(port=port)
    receiver.reply = slow
    receiver.start()
    try:
        wait_until(lambda: len(receiver.received) > 5, timeout_s=60, what="the new relay sends")
        hooked.kill("relay")  # with requests under way
        wait_until(lambda: all_delivered(hooked, task_ids), timeout_s=90, what="every event is delivered")
    finally:
        receiver.stop()
    assert_each_arrived_under_one_id(receiver, task_ids)


def slow(_request: Received, _handler: BaseHTTPRequestHandler) -> Reply:
    time.sleep(0.05)
    return Reply()


def test_status_shows_what_waits(hooked: Service, port: int) -> None:
    task_id = hooked.submit(IMAGE, webhook=f"http://127.0.0.1:{port}/", **OPTIONS)
    wait_until(lambda: hooked.task(task_id)["webhook"]["attempts"] > 1, timeout_s=60, what="it was tried again")
    task = hooked.task(task_id)
    assert task["webhook"]["status"] == "pending"
    assert task["webhook"]["next_attempt_at"] > task["finished_at"]
    assert {attempt["error"] for attempt in task["webhook"]["last_attempts"]} == {"no connection to 127.0.0.1"}
