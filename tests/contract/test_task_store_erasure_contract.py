"""Erasure in the task store: nothing of a task is left, and its neighbours keep all that is theirs."""

from __future__ import annotations

import dataclasses
import uuid

import pytest
import redis
from store_worlds import (
    ALL,
    IDEMPOTENCY_TTL_S,
    RESULT_TTL_S,
    StoreWorld,
    accept,
    bury_one,
    finished,
    lease_one,
    leased,
    position,
    running,
)
from support.samples import QUEUE, a_batch, a_request, a_success
from support.task_pages import listed_ids
from support.traces import keys_with

from inference.domain import TaskStatus
from inference.errors import BatchNotFound, ErasureNotFound, TaskNotFound
from inference.task_store import Commit, ErasureState, LeaseState, TaskFilter, TaskStore
from inference.task_store.outbox import Outbox, OutboxEntry
from inference.webhook import Webhook, WebhookEvent

IMAGE = b"the bytes of an image, found nowhere else"
REQUEST_ID = "request of a person"
WEBHOOK = Webhook("https://hooks.example/path", "hooks.example:443", tuple(WebhookEvent))


@pytest.fixture
def left(redis_client: redis.Redis, key_prefix: str) -> Traces:
    return Traces(redis_client, key_prefix)


class Traces:
    """Traces of a task that the server still has."""

    def __init__(self, client: redis.Redis, key_prefix: str) -> None:
        self._client = client
        self._prefix = key_prefix

    def of(self, task_id: str, *, but: str = "") -> list[str]:
        """Keys with its id, its request id or its image; except those of which the name ends with `but`."""
        found = keys_with(self._client, f"{self._prefix}:*", task_id.encode(), REQUEST_ID.encode(), IMAGE)
        return [one for one in found if not but or f":{but}: " not in one]

    def counts(self) -> list[str]:
        """Keys that count tasks of owners."""
        keys = (f"{self._prefix}:open-tasks", f"{self._prefix}:shares:{QUEUE}", f"{self._prefix}:inline-bytes")
        return [key for key in keys if self._client.exists(key)]

    def outbox(self, sink: str) -> list[OutboxEntry]:
        outbox = Outbox(self._client, self._prefix, sink, "a relay")
        outbox.open()
        return outbox.take(ALL, block_ms=1)


def erase(store: TaskStore, *task_ids: str, keys: tuple[str, ...] = ()) -> str:
    """Erase tasks; returns the id of the erasure."""
    erasure_id = uuid.uuid4().hex
    assert store.erase(task_ids, erasure_id=erasure_id, owner="me", object_keys=keys) == list(task_ids)
    return erasure_id


def a_whole_task(store: TaskStore) -> str:
    """A task of which as many keys as possible tell."""
    return accept(
        store,
        request_id=REQUEST_ID,
        image=IMAGE,
        priority=5,
        webhook=WEBHOOK,
        idempotency_key=f"key of {REQUEST_ID}",
        fingerprint="f",
        sinks=("mongodb", "kafka"),
        owner="me",
    )


@pytest.mark.parametrize("state", ["queued", "leased", "running", "canceled", "expired", "failed", "dead letter"])
def test_nothing_is_left(world: StoreWorld, store: TaskStore, left: Traces, state: str) -> None:
    task_id = a_whole_task(store)
    if state != "queued":
        store.lease("w", [task_id])
    if state in {"running", "failed", "dead letter"}:
        assert store.start("w", [task_id]) == [1]
    match state:
        case "canceled":
            store.cancel(task_id)
        case "expired":
            world.let_pass(3601)
            assert store.expire_due(ALL) == [task_id]
        case "failed":
            assert bury_one(store, "w", task_id, attempt=1)
            assert store.discard_dead_letter(task_id)
        case "dead letter":
            assert bury_one(store, "w", task_id, attempt=1)
    store.keep_image(task_id, IMAGE)
    assert left.of(task_id)

    erase(store, task_id)

    assert left.of(task_id) == []
    with pytest.raises(TaskNotFound):
        store.get(task_id)
    assert store.get_queue_load(QUEUE).ahead == 0
    assert store.claim_webhooks(lease_s=1, limit=ALL, per_receiver=ALL, in_flight={}) == []
    assert store.list_kept_images(ALL) == store.list_dead_letters(ALL) == []
    assert left.counts() == []


def test_of_a_result_only_the_orders_for_the_sinks_are_left_until_they_are_done(store: TaskStore, left: Traces) -> None:
    task_id = a_whole_task(store)
    store.lease("w", [task_id])
    store.start("w", [task_id])
    store.commit("w", [Commit(task_id, 1, a_success())])
    (result,) = left.outbox("mongodb")
    store.confirm_deliveries("mongodb", [(result.entry_id, task_id)])

    erasure_id = erase(store, task_id)

    assert all(":outbox:" in one for one in left.of(task_id))
    progress = store.get_erasure(erasure_id)
    assert (progress.owner, progress.tasks, progress.is_done) == ("me", 1, False)
    assert progress.stores == {"images": "erased", "kafka": "pending", "mongodb": "pending"}
    (order,) = left.outbox("mongodb")
    assert order.erasure is not None
    assert (order.task_id, order.erasure.own_request_id, order.erasure.is_pending) == (task_id, REQUEST_ID, False)
    undelivered, other_order = left.outbox("kafka")
    assert other_order.erasure is not None
    assert (undelivered.erasure, other_order.erasure.is_pending) == (None, True)

    store.confirm_deliveries("kafka", [(undelivered.entry_id, task_id)])
    store.confirm_erasures("mongodb", [(order.entry_id, erasure_id, True)])
    store.confirm_erasures("kafka", [(other_order.entry_id, erasure_id, False)])
    store.confirm_erasures("kafka", [(other_order.entry_id, erasure_id, False)])  # the first answer got lost
    assert left.of(task_id) == []
    progress = store.get_erasure(erasure_id)
    assert (progress.stores["mongodb"], progress.stores["kafka"]) == (ErasureState.ERASED, ErasureState.CANNOT)
    assert progress.is_done


def test_an_outbox_tells_whether_a_result_comes_before_its_order(
    world: StoreWorld, store: TaskStore, redis_client: redis.Redis, key_prefix: str
) -> None:
    task_id, other = (finished(store, sinks=("kafka",)) for _ in range(2))
    erase(store, task_id)
    erase(store, other)
    one, another = (Outbox(redis_client, key_prefix, "kafka", name) for name in ("one", "another"))
    one.open()
    result, *_ = one.take(2, block_ms=1)
    orders = another.take(2, block_ms=1)
    store.confirm_deliveries("kafka", [(world.outbox("kafka")[1][0], other)])

    assert another.find_results_before(orders) == {task_id}
    store.confirm_deliveries("kafka", [(result.entry_id, task_id)])
    assert another.find_results_before(orders) == set()


def test_what_a_worker_holds_comes_to_nothing(store: TaskStore, left: Traces) -> None:
    runs, waits = running(store, "w", sinks=("kafka",)), leased(store, "w", image=IMAGE)
    erase(store, runs, waits)

    assert store.commit("w", [Commit(runs, 1, a_success())]) == [False]
    assert store.renew("w", [runs, waits]) == [False, False]
    assert store.start("w", [waits]) == [None]
    store.release("w", [waits])
    assert store.note_death("w", [runs]) == [None]
    assert not store.keep_image(waits, IMAGE)
    assert (left.of(runs), left.of(waits)) == ([], [])
    assert store.get_queue_load(QUEUE).ahead == 0


@pytest.mark.parametrize("owner", ["", "me"])
def test_neighbours_in_the_list_keep_their_places(store: TaskStore, owner: str) -> None:
    others = accept(store, owner="another")
    before = accept(store, owner=owner)
    batch = a_batch(*(a_request(request_id="r", owner=owner) for _ in range(5)), owner=owner)
    store.accept_batch(batch, enqueue=[], max_queue_depth=0)
    after = accept(store, owner=owner)
    erase(store, others)
    ids = [before, *(task.task_id for task in batch.tasks), after]
    for erased in (ids[3], ids[1], after):
        erase(store, erased)
        ids.remove(erased)
        for limit in (1, 2, 3, ALL):
            assert listed_ids(store, TaskFilter(), limit=limit) == ids[::-1]
            assert listed_ids(store, TaskFilter(owner=owner), limit=limit) == ids[::-1]
    assert position(store, ids[1]) == 1
    newest = accept(store, owner=owner)
    assert listed_ids(store, TaskFilter(owner=owner), limit=2) == [newest, *ids[::-1]]
    assert listed_ids(store, TaskFilter("r", owner=owner), limit=2) == ids[:0:-1]


@pytest.mark.parametrize("owner", ["", "me"])
def test_a_batch_keeps_its_other_items(store: TaskStore, left: Traces, owner: str) -> None:
    refusal = TaskNotFound("no image").to_dict()
    one, other = a_request(owner=owner), a_request(owner=owner)
    batch = a_batch(one, refusal, other, idempotency_key="key", fingerprint="f", owner=owner)
    store.accept_batch(batch, enqueue=[], max_queue_depth=0)
    first, second = (task.task_id for task in batch.tasks)

    erase(store, first)
    gone, *others = store.get_batch(batch.batch_id).entries
    assert isinstance(gone, dict)
    assert gone["code"] == "task_not_found"
    assert others == [refusal, second]
    assert store.find_idempotent("key", owner=owner) is not None
    assert left.of(first) == []

    erase(store, second)
    with pytest.raises(BatchNotFound):
        store.get_batch(batch.batch_id)
    assert store.find_idempotent("key", owner=owner) is None
    assert left.of(second) == []


def test_a_batch_loses_several_items_at_once(store: TaskStore, left: Traces) -> None:
    batch = a_batch(*(a_request() for _ in range(4)), idempotency_key="key", fingerprint="f")
    store.accept_batch(batch, enqueue=[], max_queue_depth=0)
    first, second, third, fourth = (task.task_id for task in batch.tasks)
    erase(store, fourth, first, third)
    assert store.get_batch(batch.batch_id).task_ids == [second]
    assert store.find_idempotent("key") is not None
    assert [left.of(task_id) for task_id in (first, third, fourth)] == [[], [], []]


def test_an_idempotency_key_that_is_used_again_stays(world: StoreWorld, store: TaskStore) -> None:
    first = running(store, "w", idempotency_key="key", fingerprint="f")
    bury_one(store, "w", first, attempt=1)
    world.let_pass(IDEMPOTENCY_TTL_S + 1)
    second = accept(store, idempotency_key="key", fingerprint="f")
    erase(store, first)
    known = store.find_idempotent("key")
    assert known is not None
    assert known.task_id == second


def test_a_batch_does_not_stay_for_ever(world: StoreWorld, store: TaskStore) -> None:
    """The batch of a result that waits for a sink has no end of life; the erased task does not set it any more."""
    batch = a_batch(a_request(sinks=("kafka",)), a_request())
    store.accept_batch(batch, enqueue=[], max_queue_depth=0)
    first, second = (task.task_id for task in batch.tasks)
    store.cancel(second)
    store.lease("w", [first])
    store.start("w", [first])
    store.commit("w", [Commit(first, 1, a_success())])
    erase(store, first)

    assert store.get_batch(batch.batch_id).task_ids == [second]
    world.let_pass(RESULT_TTL_S + 1)
    with pytest.raises(BatchNotFound):
        store.get_batch(batch.batch_id)


def test_a_replay_forgets_which_task_it_repeats(store: TaskStore, left: Traces) -> None:
    first = finished(store, request_id="r")
    replay, other = accept(store, request_id="r", replay_of=first), accept(store, request_id="r", replay_of="another")
    dead = running(store, "w")
    bury_one(store, "w", dead, attempt=1)
    again = accept(store, idempotency_key=f"replay:{dead}")
    erase(store, first, dead)

    assert (left.of(first), left.of(dead)) == ([], [])
    assert [store.get(task_id).replay_of for task_id in (replay, other)] == ["", "another"]
    assert store.get(again).status is TaskStatus.QUEUED


def test_tombstones_are_only_for_request_ids_of_one_task(store: TaskStore, left: Traces) -> None:
    first, second = (finished(store, request_id="r", sinks=("kafka",)) for _ in range(2))
    own = finished(store, sinks=("kafka",))
    erase(store, first)
    erase(store, second)
    erase(store, own)
    keys = [entry.erasure.own_request_id for entry in left.outbox("kafka") if entry.erasure is not None]
    assert keys == ["", "r", f"request-{own}"]


def test_tasks_that_are_erased_together_are_no_others(store: TaskStore, left: Traces) -> None:
    first, second = (finished(store, request_id="r", sinks=("kafka",)) for _ in range(2))
    erase(store, first, second)
    keys = [entry.erasure.own_request_id for entry in left.outbox("kafka") if entry.erasure is not None]
    assert keys == ["r", "r"]


def test_no_tombstone_is_for_a_result_whose_task_has_the_request_id_as_its_own_id(store: TaskStore, left: Traces) -> None:
    victim = a_request()
    victim = dataclasses.replace(victim, request_id=victim.task_id)
    store.accept(victim, enqueue=None, max_queue_depth=0)
    erase(store, finished(store, request_id=victim.task_id, sinks=("kafka",), owner="another"))
    keys = [entry.erasure.own_request_id for entry in left.outbox("kafka") if entry.erasure is not None]
    assert keys == [""]


def test_a_task_that_is_named_twice_is_erased_once(store: TaskStore, left: Traces) -> None:
    task_id = a_whole_task(store)
    erasure_id = uuid.uuid4().hex
    assert store.erase([task_id, task_id], erasure_id=erasure_id, owner="me", object_keys=[]) == [task_id]
    assert (left.of(task_id), left.counts(), store.get_erasure(erasure_id).tasks) == ([], [], 1)


def test_a_task_that_lost_its_number_is_erased(
    store: TaskStore, left: Traces, redis_client: redis.Redis, key_prefix: str
) -> None:
    task_id = a_whole_task(store)
    redis_client.hdel(f"{key_prefix}:task:{task_id}", "owner_seq")
    erase(store, task_id)
    assert all(":owner:me:tasks" in one for one in left.of(task_id))


def test_a_message_of_a_plain_client_that_comes_again_makes_no_task(store: TaskStore, left: Traces) -> None:
    task_id = finished(store)
    erase(store, task_id)
    assert not store.accept(a_request(task_id), enqueue=None, max_queue_depth=0).created
    assert lease_one(store, "w", task_id).state is LeaseState.UNKNOWN
    assert left.of(task_id) == []
    assert store.accept(a_request(), enqueue=None, max_queue_depth=0).created


def test_ids_of_this_service_leave_no_digest(store: TaskStore, redis_client: redis.Redis, key_prefix: str) -> None:
    erase(store, accept(store, **_own_id(store)))
    assert not redis_client.exists(f"{key_prefix}:erased")
    erase(store, accept(store))
    assert redis_client.zcard(f"{key_prefix}:erased") == 1
    assert redis_client.ttl(f"{key_prefix}:erased") > 86_000


def _own_id(store: TaskStore) -> dict[str, object]:
    request = a_request(f"{uuid.uuid4().hex[:26]}{store.get_tag()}")
    return {name: getattr(request, name) for name in ("task_id", "item")}


def test_objects_are_listed_until_they_are_deleted(store: TaskStore) -> None:
    erasure_id = erase(store, accept(store), keys=("uploads/1", "dead-letters/1"))
    assert store.list_object_erasures(ALL) == {erasure_id: ["uploads/1", "dead-letters/1"]}
    assert store.get_erasure(erasure_id).stores == {"images": "pending"}
    for _ in range(2):
        store.end_object_erasure(erasure_id)
    assert store.list_object_erasures(ALL) == {}
    assert store.get_erasure(erasure_id).stores == {"images": "erased"}


def test_unknown_tasks_and_erasures(world: StoreWorld, store: TaskStore) -> None:
    erasure_id = uuid.uuid4().hex
    assert store.erase(["nobody"], erasure_id=erasure_id, owner="", object_keys=["uploads/nobody"]) == []
    assert store.list_object_erasures(ALL) == {}
    with pytest.raises(ErasureNotFound):
        store.get_erasure(erasure_id)
    known = erase(store, accept(store))
    world.let_pass(86_401)
    with pytest.raises(ErasureNotFound):
        store.get_erasure(known)


def test_the_caller_that_waits_is_told(store: TaskStore, redis_client: redis.Redis) -> None:
    with redis_client.pubsub(ignore_subscribe_messages=True) as channel:
        name = f"replies-{uuid.uuid4().hex}"
        channel.subscribe(name)
        channel.get_message(timeout=5)
        erase(store, accept(store, reply_to=name))
        message = channel.get_message(timeout=5)
    assert message is not None
    assert b"the task was erased before it had a result" in message["data"]


def test_records_of_other_tasks_are_unchanged(store: TaskStore) -> None:
    other = a_whole_task(store)
    before = dataclasses.replace(store.get(other))
    erase(store, accept(store, request_id=REQUEST_ID, webhook=WEBHOOK, image=IMAGE))
    assert store.get(other) == before
    assert listed_ids(store, TaskFilter(REQUEST_ID)) == [other]
    assert store.get_image(other) == IMAGE
