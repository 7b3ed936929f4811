"""Redis does what it was asked and its answer gets lost: the client asks again, and the answer is that of the first time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from support.samples import a_batch, a_request
from support.tcp_proxy import TcpProxy

from inference.domain import ModelRef, TaskStatus
from inference.errors import ChangeInProgress, TaskAlreadyFinished
from inference.rollout.desired_state import NewFiles, Proposal, RolloutStore
from inference.runtime.redis import connect
from inference.task_store import Accepted, AcceptedBatch
from inference.task_store.redis_store import RedisTaskStore, StorePolicy

pytestmark = pytest.mark.services

_DATABASE = 11


class Loss:
    """Ends the connection in place of the next answer but `passes`, once it is armed."""

    def __init__(self) -> None:
        self.is_armed = False
        self.passes = 0
        self.lost = 0

    def __call__(self, data: bytes) -> bytes:
        if not self.is_armed:
            return data
        self.passes -= 1
        if self.passes >= 0:
            return data
        self.is_armed = False
        self.lost += 1
        raise ConnectionResetError


@pytest.fixture
def loss() -> Loss:
    return Loss()


@pytest.fixture
def client(services_env: dict[str, str], loss: Loss, key_prefix: str) -> Iterator[redis.Redis]:
    proxy = TcpProxy(services_env["REDIS_URL"].removeprefix("redis://").partition("/")[0], loss)
    with connect(f"redis://{proxy.address}/{_DATABASE}") as client:
        yield client
        for key in client.scan_iter(f"{key_prefix}*", count=1000):
            client.delete(key)
    proxy.cut()


@pytest.fixture
def store(client: redis.Redis, key_prefix: str) -> RedisTaskStore:
    return RedisTaskStore(client, StorePolicy(key_prefix))


class Losing:
    """Makes a call whose first answer gets lost, or that after `passes` others."""

    def __init__(self, loss: Loss) -> None:
        self._loss = loss

    def __call__(self, work: Callable[[], Any], *, passes: int = 0) -> Any:
        self._loss.is_armed, self._loss.passes, self._loss.lost = True, passes, 0
        answer = work()
        assert self._loss.lost == 1
        return answer


@pytest.fixture
def losing(loss: Loss) -> Losing:
    return Losing(loss)


def accept(store: RedisTaskStore, **changes: Any) -> str:
    return store.accept(a_request(**changes), enqueue=None, max_queue_depth=0).task_id


def test_a_task_is_accepted_once(store: RedisTaskStore, losing: Losing) -> None:
    accept(store)
    request = a_request(idempotency_key="key", fingerprint="content")
    accepted = losing(lambda: store.accept(request, enqueue=None, max_queue_depth=2))
    assert accepted == Accepted(request.task_id, created=True)
    assert store.get_queue_stats(request.queue).depth == 2


def test_a_batch_is_accepted_once(store: RedisTaskStore, losing: Losing) -> None:
    accept(store)
    batch = a_batch(*(a_request() for _ in range(3)))
    accepted = losing(lambda: store.accept_batch(batch, enqueue=[], max_queue_depth=4))
    assert accepted == AcceptedBatch(batch.batch_id, created=True)
    assert store.get_queue_stats(batch.tasks[0].queue).depth == 4


def test_a_withdrawal_counts(store: RedisTaskStore, losing: Losing) -> None:
    store.withdraw(accept(store))
    task_id = accept(store)
    assert losing(lambda: store.withdraw(task_id))
    assert store.get_many([task_id]) == [None]


def test_a_withdrawal_of_a_batch_counts(store: RedisTaskStore, losing: Losing) -> None:
    first, second = (a_batch(a_request(), a_request()) for _ in range(2))
    for batch in (first, second):
        store.accept_batch(batch, enqueue=[], max_queue_depth=0)
    store.withdraw_batch(first.batch_id)
    assert losing(lambda: store.withdraw_batch(second.batch_id), passes=1)
    assert store.withdraw_batch(second.batch_id)
    assert store.get_many(second.record.task_ids) == [None, None]


def test_a_cancellation_counts_for_its_caller_alone(store: RedisTaskStore, losing: Losing) -> None:
    store.cancel(accept(store))
    task_id, *others = (accept(store) for _ in range(3))
    assert losing(lambda: store.cancel(task_id)).status is TaskStatus.CANCELED
    with pytest.raises(TaskAlreadyFinished):
        store.cancel(task_id)
    assert losing(lambda: store.cancel_many(others)) == [True, True]
    assert store.cancel_many(others) == [False, False]


def test_a_proposal_is_not_in_its_own_way(client: redis.Redis, key_prefix: str, losing: Losing) -> None:
    desired = RolloutStore(client, key_prefix)
    desired.keep_alive("warm")
    proposal = Proposal("change-1", "digits", NewFiles("/weights"))
    losing(lambda: desired.propose(proposal))
    with pytest.raises(ChangeInProgress):
        desired.propose(Proposal("change-2", "digits", NewFiles("/weights")))
    desired.commit(Proposal("change-0", "digits", None), ModelRef("digits", "1", ""))
    assert losing(lambda: desired.commit(proposal, ModelRef("digits", "2", "")))
    assert desired.read().models["digits"].model.version == "2"
