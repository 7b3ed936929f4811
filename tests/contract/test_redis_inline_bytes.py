"""The count of the bytes that inline images take: told with each acceptance, and right however their tasks end."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
import redis
from support.samples import a_request, a_success
from support.waiting import until

from inference.domain import BatchRequest
from inference.errors import Overloaded
from inference.task_store import Commit
from inference.task_store.redis_store import RedisTaskStore, StorePolicy

IMAGE = b"seven b"


@pytest.fixture
def store(redis_client: redis.Redis, key_prefix: str) -> RedisTaskStore:
    return RedisTaskStore(redis_client, StorePolicy(key_prefix))


def accept(store: RedisTaskStore, **changes: Any) -> str:
    return store.accept(a_request(**changes), enqueue=None, max_queue_depth=0).task_id


def inline_bytes(store: RedisTaskStore) -> int:
    """The count as an acceptance without an inline image tells it."""
    return store.accept(a_request(), enqueue=None, max_queue_depth=0).inline_bytes


def commit(store: RedisTaskStore, task_id: str) -> None:
    store.lease("w", [task_id])
    store.start("w", [task_id])
    assert store.commit("w", [Commit(task_id, 1, a_success())]) == [True]


def test_each_acceptance_tells_it(store: RedisTaskStore) -> None:
    assert inline_bytes(store) == 0
    assert store.accept(a_request(image=IMAGE), enqueue=None, max_queue_depth=0).inline_bytes == 7
    tasks = tuple(a_request(image=IMAGE, batch_id="b") for _ in range(3))
    assert store.accept_batch(BatchRequest("b", tasks), enqueue=[], max_queue_depth=0).inline_bytes == 28
    assert inline_bytes(store) == 28


def test_one_that_comes_again_counts_once(store: RedisTaskStore) -> None:
    request = a_request(image=IMAGE, idempotency_key=uuid.uuid4().hex)
    again = a_request(image=IMAGE, idempotency_key=request.idempotency_key)
    for one in (request, request, again):
        assert store.accept(one, enqueue=None, max_queue_depth=0).inline_bytes == 7


def test_one_that_is_refused_does_not_count(store: RedisTaskStore) -> None:
    accept(store)
    with pytest.raises(Overloaded):
        store.accept(a_request(image=IMAGE), enqueue=None, max_queue_depth=1)
    assert inline_bytes(store) == 0


@pytest.mark.parametrize(
    "end", [commit, lambda store, task_id: store.cancel(task_id), lambda store, task_id: store.withdraw(task_id)]
)
def test_a_task_that_ends_gives_it_back_once(store: RedisTaskStore, end: Callable[[RedisTaskStore, str], Any]) -> None:
    accept(store, image=IMAGE)
    end(store, accept(store, image=IMAGE))
    assert inline_bytes(store) == 7


def test_a_task_that_expires_gives_it_back(store: RedisTaskStore) -> None:
    accept(store)
    accept(store, image=IMAGE, deadline_s=0.001)
    until(lambda: store.expire_due(10), "the deadline")
    assert inline_bytes(store) == 0


def test_a_withdrawn_batch_gives_it_back(store: RedisTaskStore) -> None:
    tasks = tuple(a_request(image=IMAGE, batch_id="b") for _ in range(3))
    store.accept_batch(BatchRequest("b", tasks), enqueue=[], max_queue_depth=0)
    assert store.withdraw_batch("b")
    assert inline_bytes(store) == 0


@pytest.mark.parametrize("end", [lambda store, task_id: store.cancel(task_id), lambda store, task_id: store.withdraw(task_id)])
def test_an_image_that_is_already_gone_is_subtracted(
    store: RedisTaskStore, redis_client: redis.Redis, key_prefix: str, end: Callable[[RedisTaskStore, str], Any]
) -> None:
    accept(store)
    task_id = accept(store, image=IMAGE)
    redis_client.delete(f"{key_prefix}:image:{task_id}")
    end(store, task_id)
    assert inline_bytes(store) == 0


def test_a_late_expiry_subtracts_the_image_that_redis_has_deleted(
    store: RedisTaskStore, redis_client: redis.Redis, key_prefix: str
) -> None:
    accept(store)
    task_id = accept(store, image=IMAGE, deadline_s=0.001)
    redis_client.pexpire(f"{key_prefix}:image:{task_id}", 1)
    until(lambda: not redis_client.exists(f"{key_prefix}:image:{task_id}"), "the end of the image's time to live")
    assert store.expire_due(10) == [task_id]
    assert inline_bytes(store) == 0


def test_an_image_whose_record_was_evicted_is_subtracted_once_no_task_is_open(
    store: RedisTaskStore, redis_client: redis.Redis, key_prefix: str
) -> None:
    task_id = accept(store, image=IMAGE)
    redis_client.delete(f"{key_prefix}:image:{task_id}", f"{key_prefix}:task:{task_id}")
    assert inline_bytes(store) == 7
    redis_client.zremrangebyrank(f"{key_prefix}:deadlines", 0, -1)
    store.expire_due(10)
    assert inline_bytes(store) == 0
