"""Owners of tasks in the task store: their lists, idempotency keys and ids are apart."""

from __future__ import annotations

import pytest
from store_worlds import RESULT_TTL_S, StoreWorld, accept, finished
from support.samples import a_batch, a_request
from support.task_pages import listed_ids

from inference.domain import BatchRecord, TaskStatus
from inference.errors import IdempotencyConflict, InvalidImage
from inference.task_store import KnownKey, TaskFilter, TaskState, TaskStore

ALICE, BOB = "alice@example.org", "bob"
REFUSED = InvalidImage("no image", field="image").to_dict()


def test_owner_of_records(store: TaskStore) -> None:
    owned, nobodys = finished(store, owner=ALICE), finished(store)
    assert [store.get(task_id).owner for task_id in (owned, nobodys)] == [ALICE, ""]
    assert [state.owner for state in store.get_states([owned, nobodys]) if state] == [ALICE, ""]
    assert [task.owner for task in store.get_completed([owned, nobodys]) if task] == [ALICE, ""]


@pytest.mark.parametrize("owner", [ALICE, ""])
def test_owner_of_batches(store: TaskStore, owner: str) -> None:
    mixed = a_batch(a_request(owner=owner), REFUSED, owner=owner)
    failed = a_batch(REFUSED, REFUSED, owner=owner)
    for batch in (mixed, failed):
        store.accept_batch(batch, enqueue=[], max_queue_depth=0)
        assert store.get_batch(batch.batch_id) == BatchRecord(batch.batch_id, batch.record.entries, owner)


@pytest.mark.parametrize("limit", [1, 2, 50])
@pytest.mark.parametrize("request_id", ["r", ""])
def test_lists_of_an_owner(store: TaskStore, request_id: str, limit: int) -> None:
    ids: dict[str, list[str]] = {ALICE: [], BOB: [], "": []}
    for owner in (ALICE, BOB, "", BOB, ALICE):
        ids[owner].append(accept(store, request_id="r", owner=owner))
        batch = a_batch(a_request(request_id="r", owner=owner), a_request(request_id="r", owner=owner), owner=owner)
        store.accept_batch(batch, enqueue=[], max_queue_depth=0)
        ids[owner] += [task.task_id for task in batch.tasks]
    for owner in (ALICE, BOB):
        assert listed_ids(store, TaskFilter(request_id, owner=owner), limit=limit) == ids[owner][::-1]
    assert set(listed_ids(store, TaskFilter(request_id), limit=limit)) == {task_id for some in ids.values() for task_id in some}
    assert listed_ids(store, TaskFilter(request_id, owner="carol"), limit=limit) == []


def test_a_page_of_an_owner_amid_the_tasks_of_another(store: TaskStore) -> None:
    first = accept(store, owner=ALICE, request_id="r")
    for _ in range(20):
        batch = a_batch(*(a_request(owner=BOB, request_id="r") for _ in range(50)), owner=BOB)
        store.accept_batch(batch, enqueue=[], max_queue_depth=0)
    last = accept(store, owner=ALICE, request_id="r")
    for wanted in (TaskFilter(owner=ALICE), TaskFilter("r", owner=ALICE)):
        page = store.list_tasks(wanted, limit=2)
        assert (page.task_ids, page.next_before) == ((last, first), None), "one call finds them, whatever others have sent"


def test_a_task_without_a_request_id_is_found_by_its_owner_alone(store: TaskStore) -> None:
    request = a_request(owner=ALICE)
    task_id = accept(store, task_id=request.task_id, request_id=request.task_id, item=request.item, owner=ALICE)
    found = {owner: listed_ids(store, TaskFilter(task_id, owner=owner)) for owner in (ALICE, BOB, "")}
    assert found == {ALICE: [task_id], BOB: [], "": [task_id]}


def test_an_index_of_an_owner_lives_as_long_as_its_records(world: StoreWorld) -> None:
    store = world.store
    accept(store, owner=ALICE, request_id="r", deadline_s=1)
    world.let_pass(RESULT_TTL_S / 2)
    (task_id,) = store.expire_due(10)
    world.let_pass(RESULT_TTL_S - 2)
    assert listed_ids(store, TaskFilter("r", owner=ALICE)) == [task_id]


def test_a_withdrawn_task_leaves_the_lists_of_its_owner(store: TaskStore) -> None:
    task_id, kept = accept(store, owner=ALICE, request_id="r"), accept(store, owner=ALICE, request_id="r")
    assert store.withdraw(task_id)
    for wanted in (TaskFilter("r", owner=ALICE), TaskFilter(owner=ALICE), TaskFilter("r")):
        assert listed_ids(store, wanted) == [kept]


def test_each_owner_has_idempotency_keys_of_its_own(store: TaskStore) -> None:
    by_owner = {owner: accept(store, owner=owner, idempotency_key="k", fingerprint=owner) for owner in (ALICE, BOB, "")}
    assert len(set(by_owner.values())) == len(by_owner)
    for owner, task_id in by_owner.items():
        assert store.find_idempotent("k", owner=owner) == KnownKey(owner, task_id=task_id)
        assert accept(store, owner=owner, idempotency_key="k", fingerprint=owner) == task_id
        with pytest.raises(IdempotencyConflict) as conflict:
            accept(store, owner=owner, idempotency_key="k", fingerprint="other")
        assert conflict.value.task_id == task_id
    assert store.find_idempotent("k", owner="carol") is None


@pytest.mark.parametrize("key", [f"{BOB}:idempotency:k", f"owner:{BOB}:idempotency:k", "k:k", ":"])
def test_no_key_leads_to_the_keys_of_another_owner(store: TaskStore, key: str) -> None:
    first = accept(store, owner=BOB, idempotency_key="k")
    others = [accept(store, owner=owner, idempotency_key=key) for owner in (ALICE, "")]
    assert len({first, *others}) == 1 + len(others)
    assert store.find_idempotent("k", owner=BOB) == KnownKey("", task_id=first)


@pytest.mark.parametrize(("first", "second"), [(ALICE, BOB), (ALICE, ""), ("", ALICE)])
def test_the_id_of_another_owners_task_is_taken(store: TaskStore, first: str, second: str) -> None:
    task_id = accept(store, owner=first)
    assert accept(store, task_id=task_id, owner=first) == task_id, "a repeated call, whose answer was lost"
    before = store.get(task_id)
    with pytest.raises(IdempotencyConflict) as conflict:
        accept(store, task_id=task_id, owner=second, request_id="s")
    assert conflict.value.task_id is None
    assert store.get(task_id) == before
    assert listed_ids(store, TaskFilter("s")) == []


def test_filter_of_states() -> None:
    state = TaskState(TaskStatus.QUEUED, 0, "r", "m", ALICE)
    matches = [TaskFilter(owner=owner).matches(state) for owner in (ALICE, BOB, "")]
    assert (matches, TaskFilter(owner=ALICE).is_any) == ([True, False, True], False)
