"""Lists of tasks in every task store: filters, pages, tasks without a record."""

from __future__ import annotations

import pytest
from store_worlds import RESULT_TTL_S, StoreWorld, accept, finished, running
from support.samples import a_request
from support.task_pages import listed_ids

from inference.domain import BatchRequest, ModelRef, TaskStatus
from inference.task_store import TaskFilter, TaskStore


@pytest.fixture
def store(world: StoreWorld) -> TaskStore:
    return world.store


def test_all_tasks_newest_first(store: TaskStore) -> None:
    single = [accept(store) for _ in range(3)]
    batch = BatchRequest("b", tuple(a_request() for _ in range(4)))
    store.accept_batch(batch, enqueue=[], max_queue_depth=0)
    last = accept(store, request_id="r")
    ids = [*single, *(task.task_id for task in batch.tasks), last]
    assert [listed_ids(store, TaskFilter(), limit=limit) for limit in (1, 2, 3, 8, 9)] == [ids[::-1]] * 5


def test_none(store: TaskStore) -> None:
    page = store.list_tasks(TaskFilter())
    assert (page.task_ids, page.next_before) == ((), None)


@pytest.mark.parametrize("request_id", ["r", ""])
def test_by_status(store: TaskStore, request_id: str) -> None:
    queued = accept(store, request_id="r")
    canceled = accept(store, request_id="r")
    store.cancel(canceled)
    runs = running(store, "w", request_id="r")
    succeeded = finished(store, request_id="r")
    expired = accept(store, request_id="r", deadline_s=0)
    store.expire_due(10)
    by_status = {
        TaskStatus.QUEUED: [queued],
        TaskStatus.RUNNING: [runs],
        TaskStatus.SUCCEEDED: [succeeded],
        TaskStatus.CANCELED: [canceled],
        TaskStatus.EXPIRED: [expired],
        TaskStatus.FAILED: [],
    }
    for status, ids in by_status.items():
        assert listed_ids(store, TaskFilter(request_id, (status,))) == ids
    both = TaskFilter(request_id, (TaskStatus.QUEUED, TaskStatus.EXPIRED))
    assert listed_ids(store, both, limit=1) == [expired, queued]


def test_by_model(store: TaskStore) -> None:
    old, new, longer, quoted = (
        accept(store, model=ModelRef(name, version, "sha256:ab"))
        for name, version in (("m", "1"), ("m", "2"), ("mm", "1"), ('m","1', "1"))
    )
    for name, ids in (("m", [new, old]), ("mm", [longer]), ('m","1', [quoted]), ("n", [])):
        assert listed_ids(store, TaskFilter(model=name)) == ids


def test_since_a_time(world: StoreWorld) -> None:
    store = world.store
    old = accept(store, deadline_s=60)
    world.let_pass(20)
    new = accept(store, deadline_s=60)
    at_ms = store.get(new).created_at_ms
    assert [listed_ids(store, TaskFilter(since_ms=since)) for since in (at_ms, at_ms + 1)] == [[new], []]
    page = store.list_tasks(TaskFilter(since_ms=at_ms), limit=1)
    assert page.next_before is None, "older tasks need not be examined"
    assert listed_ids(store, TaskFilter(since_ms=1)) == [new, old]


def test_records_that_are_gone_are_left_out(world: StoreWorld) -> None:
    store = world.store
    gone, withdrawn, kept = (
        finished(store),
        accept(store, deadline_s=RESULT_TTL_S * 3),
        accept(store, deadline_s=RESULT_TTL_S * 3),
    )
    store.withdraw(withdrawn)
    world.let_pass(RESULT_TTL_S + 1)
    assert store.get_many([gone]) == [None]
    assert listed_ids(store, TaskFilter(), limit=1) == [kept]


def test_a_repeated_acceptance_is_listed_once(store: TaskStore) -> None:
    request = a_request(idempotency_key="key", fingerprint="f")
    for again in (request, request, a_request(idempotency_key="key", fingerprint="f")):
        store.accept(again, enqueue=None, max_queue_depth=0)
    assert listed_ids(store, TaskFilter()) == [request.task_id]
