"""Sinks that stop under load and relays that die: every result arrives, once where the sink can tell duplicates."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import orjson
import pytest
import requests
from support.client import wait_until
from support.digits import distinct_digits
from support.full_stack import RELAYS, SINKS, FullStack
from support.private_servers import PrivateServer
from support.tenant import Tenant

from dev.servers.servers import ferretdb, kafka

pytestmark = [pytest.mark.process, pytest.mark.services, pytest.mark.timeout(600)]

CALLERS = 3
DIGITS = 100
SETTINGS = {
    "INFERENCE_RELAY__BATCH_SIZE": "20",
    "INFERENCE_RELAY__CLAIM_IDLE_S": "3",
    "INFERENCE_RELAY__MAX_BACKOFF_S": "1",
    "INFERENCE_MONGODB__TIMEOUT_S": "5",
    "INFERENCE_KAFKA__TIMEOUT_S": "5",
}


@pytest.fixture(scope="module")
def servers(services_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, PrivateServer]]:
    """A MongoDB and a Kafka that these tests may stop, by sink."""
    kinds = {"mongodb": ferretdb.KIND, "kafka": kafka.KIND}
    servers = {sink: PrivateServer(kind, tmp_path_factory.mktemp(sink)) for sink, kind in kinds.items()}
    try:
        with ThreadPoolExecutor() as threads:
            list(threads.map(PrivateServer.start, servers.values()))
        yield servers
    finally:
        for server in servers.values():
            server.stop()


@pytest.fixture(scope="module")
def stack(
    services_env: dict[str, str], servers: dict[str, PrivateServer], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FullStack]:
    folder = tmp_path_factory.mktemp("stack")
    own = {"MONGODB_URL": f"mongodb://{servers['mongodb'].endpoint}/", "KAFKA_BOOTSTRAP": servers["kafka"].endpoint}
    tenant = Tenant(services_env | own, folder)
    stack = FullStack(folder, tenant, SETTINGS)
    try:
        stack.start_all()
        yield stack
    finally:
        stack.stop_all()
        tenant.leave()


class Load:
    """Callers who send one image after another, each waiting for its answer, which must be the right one."""

    def __init__(self, stack: FullStack) -> None:
        #: of what was answered, in this order
        self.task_ids: list[str] = []
        self._stack = stack
        self._numbers = itertools.count()
        self._ending = threading.Event()
        self._threads = ThreadPoolExecutor(CALLERS)

    def __enter__(self) -> Self:
        self._callers = [self._threads.submit(self._call) for _ in range(CALLERS)]
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._threads.shutdown()
        for caller in self._callers:
            caller.result()

    def more(self, count: int) -> list[str]:
        """The next task ids, of requests that were sent from now on."""
        first = len(self.task_ids) + CALLERS
        wait_until(lambda: self._failed() or len(self.task_ids) >= first + count, timeout_s=60, what="requests are answered")
        return self.task_ids[first : first + count]

    def _failed(self) -> bool:
        return any(caller.done() for caller in self._callers)

    def _call(self) -> None:
        digits = distinct_digits(DIGITS)
        while not self._ending.wait(0.03):
            digit = digits[next(self._numbers) % DIGITS]
            response = self._stack.post(digit.png)
            assert response.status_code == requests.codes.ok, response.text
            answer = response.json()
            assert digit.is_answer(answer["response"]["prediction"])
            self.task_ids.append(answer["task_id"])


def test_sinks_that_stop_under_load(stack: FullStack, servers: dict[str, PrivateServer]) -> None:
    """Callers are answered all the while, a sink that is up gets its results, and one that comes back gets the rest."""
    with Load(stack) as load:
        load.more(30)
        servers["kafka"].stop()
        wait_deliveries(stack, load.more(40), mongodb="delivered", kafka="pending")
        servers["mongodb"].stop()
        without_any = load.more(40)
        wait_deliveries(stack, without_any, mongodb="pending", kafka="pending")
        servers["kafka"].start()
        wait_deliveries(stack, without_any, mongodb="pending", kafka="delivered")
        servers["mongodb"].start()
        wait_deliveries(stack, load.more(30), mongodb="delivered", kafka="delivered")

    assert_each_is_there(stack, load.task_ids)
    stack.assert_running()


def test_what_a_killed_relay_had_taken_goes_to_the_other(stack: FullStack, servers: dict[str, PrivateServer]) -> None:
    killed, other = map(stack.pid, RELAYS)
    servers["mongodb"].stop()
    task_ids = submit(stack, 60)
    wait_until(lambda: held(stack, killed) and held(stack, other), timeout_s=30, what="both relays have taken entries")

    stack.kill(RELAYS[0])
    assert held(stack, killed) > 0
    servers["mongodb"].start()

    assert_each_is_there(stack, task_ids)
    assert held(stack, killed) == 0
    stack.start_relay(RELAYS[0])
    stack.wait_relays()


@pytest.mark.parametrize("sink", SINKS)
def test_a_relay_killed_before_it_noted_what_the_sink_has(stack: FullStack, sink: str) -> None:
    """The entries come again: MongoDB has each once, Kafka's readers drop duplicates."""
    stack.stop(*RELAYS)
    task_ids = submit(stack, 10)
    for task_id in task_ids:
        stack.task(task_id, wait_s=30)

    stack.start("dying", "tests/support/dying_relay.py", PYTHONPATH=".", INFERENCE_SINKS=f'["{sink}"]')
    stack.wait_killed("dying")
    assert in_sink(stack, sink).keys() >= set(task_ids)
    wait_deliveries(stack, task_ids, mongodb="pending", kafka="pending")

    for relay in RELAYS:
        stack.start_relay(relay)
    stack.wait_relays()
    assert_each_is_there(stack, task_ids)
    counts = in_sink(stack, sink)
    assert all(counts[task_id] == 1 if sink == "mongodb" else counts[task_id] >= 2 for task_id in task_ids)


def submit(stack: FullStack, count: int) -> list[str]:
    return [stack.submit(digit.png) for digit in distinct_digits(DIGITS)[:count]]


def held(stack: FullStack, relay: int) -> int:
    """Results for MongoDB that a relay has taken."""
    return stack.tenant.held("mongodb").get(relay, 0)


def wait_deliveries(stack: FullStack, task_ids: list[str], **expected: str) -> None:
    def deliveries(task_id: str) -> dict[str, str]:
        return {delivery["sink"]: delivery["status"] for delivery in stack.task(task_id)["deliveries"]}

    assert task_ids
    wait_until(lambda: all(deliveries(task_id) == expected for task_id in task_ids), timeout_s=90, what=str(expected))


def assert_each_is_there(stack: FullStack, task_ids: list[str]) -> None:
    stack.tenant.wait_delivered(*SINKS)
    for sink in SINKS:
        found = in_sink(stack, sink)
        assert [task_id for task_id in task_ids if task_id not in found] == []
    assert set(in_sink(stack, "mongodb").values()) == {1}


def in_sink(stack: FullStack, sink: str) -> Counter[str]:
    """Count how often each task's result is there."""
    if sink == "mongodb":
        return Counter(document["task_id"] for document in stack.tenant.documents())
    return Counter(orjson.loads(record.value)["task_id"] for record in stack.tenant.records())
