"""What only the store on Redis does: races between connections, reply messages, keys that end, a server that does not answer."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from support.redis_server import RedisServer, client_of_nobody, own_redis_server
from support.samples import QUEUE, a_failure, a_request, a_success
from support.waiting import TIMEOUT_S, together, until

from inference.domain import TaskStatus, decode_outcome
from inference.errors import ServiceUnavailable, TaskAlreadyFinished
from inference.lifecycle.replies import parse_frames
from inference.rollout.worker_registry import WorkerInfo, WorkerPresence
from inference.runtime.redis import connect, unavailable_when_down
from inference.task_store import Commit, Enqueue, LeaseState
from inference.task_store.outbox import Outbox, outbox_stats, relays_of
from inference.task_store.redis_store import RedisTaskStore, StorePolicy

ALL = 1000


@pytest.fixture
def store(redis_client: redis.Redis, key_prefix: str) -> RedisTaskStore:
    return RedisTaskStore(redis_client, StorePolicy(key_prefix))


@pytest.fixture
def hasty(redis_client: redis.Redis, key_prefix: str) -> RedisTaskStore:
    """A store whose leases run out while a test looks."""
    return RedisTaskStore(redis_client, StorePolicy(key_prefix, lease_s=0.05))


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    with own_redis_server() as server:
        yield server


def accept_many(store: RedisTaskStore, count: int, **changes: Any) -> list[str]:
    requests = [a_request(**changes) for _ in range(count)]
    return [store.accept(request, enqueue=None, max_queue_depth=0).task_id for request in requests]


def start(store: RedisTaskStore, owner: str, task_ids: list[str]) -> list[Commit]:
    """Lease and start whatever of `task_ids` can be had; gives what to commit."""
    leases = store.lease(owner, task_ids).leases
    ours = [task_id for task_id, lease in zip(task_ids, leases, strict=True) if lease.state is LeaseState.LEASED]
    attempts = store.start(owner, ours)
    return [Commit(task_id, attempt, a_success()) for task_id, attempt in zip(ours, attempts, strict=True) if attempt is not None]


def commit(store: RedisTaskStore, owner: str, commits: list[Commit]) -> list[str]:
    """Gives the ids of those that were written."""
    return [one.task_id for one, written in zip(commits, store.commit(owner, commits), strict=True) if written]


def start_and_commit(store: RedisTaskStore, owner: str, task_ids: list[str]) -> list[str]:
    return commit(store, owner, start(store, owner, task_ids))


@pytest.mark.parametrize(("field", "value"), [("item", b"no JSON"), ("status", b"odd"), ("model", b"[]"), ("outcome", b"\xff")])
def test_a_record_that_cannot_be_read_hides_no_other(
    store: RedisTaskStore,
    redis_client: redis.Redis,
    key_prefix: str,
    caplog: pytest.LogCaptureFixture,
    *,
    field: str,
    value: bytes,
) -> None:
    odd, good = accept_many(store, 2)
    start_and_commit(store, "worker", [odd, good])
    redis_client.hset(f"{key_prefix}:task:{odd}", field, value)
    first, second = store.get_many([odd, good])
    assert first is None
    assert second is not None
    ended = store.get_completed([odd, good])
    assert (ended[0] is None) is (field == "outcome")
    assert ended[1] is not None
    assert f"the record of task {odd} cannot be read" in caplog.text


class TestTime:
    """The clock is the server's; these few wait for it."""

    def test_a_lease_runs_out(self, hasty: RedisTaskStore) -> None:
        (task_id,) = accept_many(hasty, 1)
        hasty.lease("w1", [task_id])
        reaped = until(lambda: hasty.reap("sweeper", max_attempts=3, limit=ALL).requeue, "the end of the lease")
        assert reaped == (task_id,)
        assert hasty.lease("w2", [task_id]).leases[0].state is LeaseState.LEASED

    def test_a_deadline_passes(self, store: RedisTaskStore) -> None:
        (task_id,) = accept_many(store, 1, deadline_s=0.05)
        assert until(lambda: store.expire_due(ALL), "the deadline") == [task_id]
        assert store.get(task_id).status is TaskStatus.EXPIRED

    def test_a_grace_passes(self, store: RedisTaskStore) -> None:
        (task_id,) = accept_many(store, 1)
        assert until(lambda: store.find_lost(QUEUE, up_to=None, grace_s=0.05, limit=ALL), "the grace") == [task_id]
        assert store.find_lost(QUEUE, up_to=None, grace_s=3600, limit=ALL) == []

    def test_a_record_ends(self, redis_client: redis.Redis, key_prefix: str) -> None:
        store = RedisTaskStore(redis_client, StorePolicy(key_prefix, result_ttl_s=0.05))
        (task_id,) = accept_many(store, 1)
        store.cancel(task_id)
        until(lambda: store.get_many([task_id]) == [None], "the end of the record")


class Crowd:
    """Everyone who may write to the same tasks, until each has ended. Each gives the ids of those that it ended."""

    def __init__(self, store: RedisTaskStore, task_ids: list[str]) -> None:
        self._store = store
        self._task_ids = task_ids
        self._give_up_at = time.monotonic() + TIMEOUT_S

    def work(self, owner: str, first: int, late: int) -> list[str]:
        """Commits when `late` other batches were begun meanwhile, so that the lease may be gone."""
        begun: deque[list[Commit]] = deque()
        ended: list[str] = []
        for number in self._until_over():
            begun.append(start(self._store, owner, self._window(first + 7 * number)))
            if len(begun) > late:
                ended += commit(self._store, owner, begun.popleft())
        return ended

    def crash(self, owner: str, times: int) -> list[str]:
        """Workers that start tasks and die, one after the other."""
        for number in range(times):
            start(self._store, f"{owner}-{number}", self._window(11 * number))
        return []

    def reap(self, owner: str) -> list[str]:
        for _ in self._until_over():
            self._store.reap(owner, max_attempts=10**6, limit=ALL)
        return []

    def cancel(self) -> list[str]:
        canceled = []
        for task_id in self._task_ids[::5]:
            with contextlib.suppress(TaskAlreadyFinished):
                canceled.append(self._store.cancel(task_id).task_id)
        return canceled

    def _window(self, first: int) -> list[str]:
        """Ten of them."""
        return [self._task_ids[(first + number) % len(self._task_ids)] for number in range(10)]

    def _until_over(self) -> Iterator[int]:
        for number in itertools.count():
            if all(record is not None and record.status.is_terminal for record in self._store.get_many(self._task_ids)):
                return
            assert time.monotonic() < self._give_up_at, "some task does not end"
            yield number


class TestRaces:
    def test_of_eight_workers_that_want_the_same_tasks_one_commits_each(self, store: RedisTaskStore) -> None:
        task_ids = accept_many(store, 50)

        def work(number: int) -> list[str]:
            own_order = task_ids[number:] + task_ids[:number]
            return [done for task_id in own_order for done in start_and_commit(store, f"w{number}", [task_id])]

        committed = [task_id for done in together([partial(work, number) for number in range(8)]) for task_id in done]
        assert sorted(committed) == sorted(task_ids)
        assert [record and record.attempts for record in store.get_many(task_ids)] == [1] * 50
        assert store.get_queue_stats(QUEUE).depth == 0

    def test_of_eight_workers_that_take_batches_one_commits_each(self, store: RedisTaskStore) -> None:
        task_ids = accept_many(store, 50)
        answers = together([partial(start_and_commit, store, f"w{number}", task_ids) for number in range(8)])
        assert sorted(task_id for done in answers for task_id in done) == sorted(task_ids)

    def test_each_task_ends_once_whoever_is_slow_dies_reaps_or_cancels(self, redis_client: redis.Redis, key_prefix: str) -> None:
        store = RedisTaskStore(redis_client, StorePolicy(key_prefix, lease_s=0.02))
        task_ids = accept_many(store, 50)
        crowd = Crowd(store, task_ids)
        actions: list[Callable[[], list[str]]] = [
            partial(crowd.work, f"w{number}", first=12 * number, late=3 * (number % 2)) for number in range(4)
        ]
        actions += [partial(crowd.crash, "c1", times=20), partial(crowd.reap, "s1"), partial(crowd.reap, "s2"), crowd.cancel]
        ended = [task_id for answer in together(actions) for task_id in answer]
        assert sorted(ended) == sorted(task_ids)

    def test_of_two_keys_that_are_the_same_one_is_accepted(self, store: RedisTaskStore, redis_client: redis.Redis) -> None:
        requests = [a_request(idempotency_key="key", fingerprint="content") for _ in range(8)]
        queue = f"list-of-{requests[0].task_id}"
        actions = [partial(store.accept, request, enqueue=Enqueue(queue, b"message"), max_queue_depth=0) for request in requests]
        accepted = together(actions)
        assert len({one.task_id for one in accepted}) == 1
        assert [one.created for one in accepted].count(True) == 1
        assert redis_client.llen(queue) == 1


def test_a_message_puts_a_token_on_the_wake_up_list(store: RedisTaskStore, redis_client: redis.Redis, key_prefix: str) -> None:
    wake_up = f"{key_prefix}-wake-up"
    for _ in range(3):
        store.accept(a_request(), enqueue=Enqueue(key_prefix, b"message", wake_up), max_queue_depth=0)
    assert redis_client.lrange(wake_up, 0, -1) == [b""]


class TestReplies:
    def test_one_message_for_each_channel_however_many_results(
        self, store: RedisTaskStore, redis_client: redis.Redis, key_prefix: str
    ) -> None:
        mine, others = f"{key_prefix}:replies:1", f"{key_prefix}:replies:2"
        with redis_client.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
            channel.subscribe(mine, others)
            until(lambda: dict(redis_client.pubsub_numsub(mine, others)) == {mine.encode(): 1, others.encode(): 1})
            ids = accept_many(store, 20, reply_to=mine)
            (other,) = accept_many(store, 1, reply_to=others)
            nobodys = accept_many(store, 1)
            everything = [*ids, other, *nobodys]
            store.lease("w", everything)
            store.start("w", everything)
            store.commit("w", [Commit(task_id, 1, a_success()) for task_id in everything])
            messages = [until(partial(channel.get_message, timeout=0.1), "a reply") for _ in range(2)]
            assert channel.get_message(timeout=0) is None
        frames = {message["channel"].decode(): list(parse_frames(message["data"])) for message in messages}
        assert [task_id for task_id, _, _ in frames[mine]] == ids
        assert [task_id for task_id, _, _ in frames[others]] == [other]
        (_, finished_at_ms, outcome) = frames[others][0]
        assert finished_at_ms == store.get(other).finished_at_ms
        assert decode_outcome(outcome).result is not None

    @pytest.mark.parametrize("end", ["canceled", "expired", "failed"])
    def test_every_kind_of_end_is_told(self, store: RedisTaskStore, redis_client: redis.Redis, key_prefix: str, end: str) -> None:
        reply_to = f"{key_prefix}:replies:1"
        with redis_client.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
            channel.subscribe(reply_to)
            until(lambda: dict(redis_client.pubsub_numsub(reply_to)) == {reply_to.encode(): 1})
            (task_id,) = accept_many(store, 1, reply_to=reply_to, deadline_s=0.001 if end == "expired" else 60)
            if end == "canceled":
                store.cancel(task_id)
            elif end == "failed":
                store.lease("w", [task_id])
                store.commit("w", [Commit(task_id, 0, a_failure())])
            else:
                until(lambda: store.expire_due(ALL), "the deadline")
            message = until(partial(channel.get_message, timeout=0.1), "a reply")
        ((replied_id, _, outcome),) = parse_frames(message["data"])
        assert (replied_id, decode_outcome(outcome).status) == (task_id, end)


class TestKeys:
    def test_nothing_without_an_end_is_left_behind(
        self, store: RedisTaskStore, redis_client: redis.Redis, key_prefix: str
    ) -> None:
        ids = accept_many(store, 5, request_id="r", sinks=("jsonl", "kafka"), idempotency_key="", image=b"bytes")
        ids += accept_many(store, 1, sinks=("jsonl",), idempotency_key="key", fingerprint="content")
        store.lease("w", ids)
        store.start("w", ids)
        store.commit("w", [Commit(task_id, 1, a_success()) for task_id in ids])
        store.cancel(accept_many(store, 1, image=b"bytes")[0])
        store.withdraw(accept_many(store, 1, image=b"bytes")[0])
        accept_many(store, 1, deadline_s=0.001, image=b"bytes")
        until(lambda: store.expire_due(ALL), "the deadline")
        for sink in ("jsonl", "kafka"):
            entries: Any = redis_client.xrange(f"{key_prefix}:outbox:{sink}")
            store.confirm_deliveries(sink, [(entry_id, fields[b"task_id"].decode()) for entry_id, fields in entries])
        keys = [key.decode() for key in redis_client.scan_iter(match=f"{key_prefix}:*", count=1000)]
        endless = {key.removeprefix(f"{key_prefix}:") for key in keys if redis_client.pttl(key) == -1}
        assert endless == {"seq", f"started:{QUEUE}", "outbox:jsonl", "outbox:kafka"}
        assert redis_client.xlen(f"{key_prefix}:outbox:jsonl") == 0
        assert not [key for key in keys if ":image:" in key]

    def test_tasks_of_two_prefixes_do_not_meet(self, redis_client: redis.Redis, store: RedisTaskStore, key_prefix: str) -> None:
        (task_id,) = accept_many(store, 1)
        other = RedisTaskStore(redis_client, StorePolicy(f"{key_prefix}-other"))
        assert other.get_many([task_id]) == [None]
        assert other.get_queue_stats(QUEUE).depth == 0


class TestServer:
    def test_a_server_that_forgot_the_scripts_gets_them_again(self, store: RedisTaskStore, redis_client: redis.Redis) -> None:
        accept_many(store, 1)
        redis_client.script_flush()
        accept_many(store, 1)
        assert store.get_queue_stats(QUEUE).depth == 2

    @pytest.mark.parametrize("known", ["", "commit", "start"])
    def test_it_gets_each_that_is_missing_again(self, store: RedisTaskStore, redis_client: redis.Redis, known: str) -> None:
        ends, starts = accept_many(store, 2)
        store.lease("w", [ends, starts])
        store.start("w", [ends])
        redis_client.script_flush()
        if known:
            redis_client.script_load(store._scripts.by_name[known].script)
        assert store.commit_and_start("w", [Commit(ends, 1, a_success())], [starts]) == ([True], [1])

    @pytest.mark.parametrize(
        "call",
        [
            lambda store: store.ping(),
            lambda store: store.accept(a_request(), enqueue=None, max_queue_depth=0),
            lambda store: store.get("task"),
            lambda store: store.find_by_request("request"),
            lambda store: store.find_idempotent("key"),
            lambda store: store.cancel("task"),
            lambda store: store.get_places({QUEUE: ["task"]}),
            lambda store: store.get_queue_stats(QUEUE),
            lambda store: store.lease("w", ["task"]),
            lambda store: store.commit("w", [Commit("task", 1, a_success())]),
            lambda store: store.commit_and_start("w", [Commit("task", 1, a_success())], ["task"]),
            lambda store: store.expire_due(ALL),
            lambda store: max(store.get_started_watermarks(QUEUE).values(), default=0),
            lambda store: store.list_dead_letters(ALL),
            lambda store: store.count_dead_letters(),
        ],
    )
    def test_a_server_that_is_down_is_unavailable(self, tmp_path: Path, call: Callable[[RedisTaskStore], object]) -> None:
        with client_of_nobody(tmp_path) as client:
            with pytest.raises(ServiceUnavailable) as caught:
                call(RedisTaskStore(client, StorePolicy()))
            assert caught.value.retry_after_s == 1

    def test_a_server_that_starts_again_still_has_what_was_accepted(self, own_server: RedisServer) -> None:
        with connect(own_server.url) as client:
            store = RedisTaskStore(client, StorePolicy())
            (task_id,) = accept_many(store, 1)
            store.lease("w", [task_id])
            own_server.stop()
            own_server.start()
            assert store.start("w", [task_id]) == [1]
            assert store.commit("w", [Commit(task_id, 1, a_success())]) == [True]

    @pytest.mark.parametrize(
        "refusal",
        [
            pytest.param(("replicaof", "127.0.0.1", "1"), id="a replica: the primary has moved"),
            pytest.param(("config", "set", "min-replicas-to-write", "1"), id="too few replicas"),
            pytest.param(("config", "set", "maxmemory", "1"), id="out of memory"),
        ],
    )
    def test_a_server_that_refuses_to_write_is_unavailable(self, own_server: RedisServer, refusal: tuple[str, ...]) -> None:
        """Not a fault of ours: a worker waits for it to pass, and a client gets 503."""
        with connect(own_server.url) as client:
            store = RedisTaskStore(client, StorePolicy())
            (task_id,) = accept_many(store, 1)
            client.execute_command(*refusal)
            with pytest.raises(ServiceUnavailable):
                store.accept(a_request(), enqueue=None, max_queue_depth=0)
            with pytest.raises(ServiceUnavailable):
                store.lease("w", [task_id])
            with pytest.raises(ServiceUnavailable):  # a pipeline, in which the refusal has a text before it
                WorkerPresence(client, "inference").announce(WorkerInfo("w", ()))

    def test_what_frees_memory_is_not_refused_by_a_server_that_is_full(self, own_server: RedisServer) -> None:
        with connect(own_server.url) as client:
            store, outbox = RedisTaskStore(client, StorePolicy()), Outbox(client, "inference", "kafka", "relay")
            outbox.open()
            running = accept_many(store, 3, sinks=("kafka",))
            commits = start(store, "w", running)
            assert store.commit("w", commits[:2]) == [True, True]
            first, second = outbox.take(2, block_ms=1000)
            client.config_set("maxmemory", "1")
            store.confirm_deliveries("kafka", [(first.entry_id, first.task_id)])
            store.refuse_deliveries("kafka", [(second.entry_id, second.task_id, "too large")])
            assert outbox_stats(client, "inference", "kafka").entries == 0
            assert store.get(first.task_id).deliveries == {"kafka": "delivered"}
            with pytest.raises(ServiceUnavailable):
                store.commit("w", commits[2:])
            client.config_set("maxmemory", "0")
            assert store.commit("w", commits[2:]) == [True]

    def test_thousands_are_delivered_in_one_call(self, store: RedisTaskStore, redis_client: redis.Redis, key_prefix: str) -> None:
        outbox = Outbox(redis_client, key_prefix, "kafka", "relay")
        outbox.open()
        ids = accept_many(store, 2500, sinks=("kafka",))
        assert all(store.commit("w", start(store, "w", ids)))
        taken = outbox.take(2500, block_ms=1000)
        store.confirm_deliveries("kafka", [(entry.entry_id, entry.task_id) for entry in taken])
        assert (len(taken), outbox_stats(redis_client, key_prefix, "kafka").entries) == (2500, 0)
        assert [relay.held for relay in relays_of(redis_client, key_prefix, "kafka")] == [0]
        assert [record and record.deliveries["kafka"] for record in store.get_many(ids)] == ["delivered"] * 2500

    @pytest.mark.parametrize(
        ("answer", "passes"),
        [
            ("ERR Error running script (call to f_0): @user_script:9: @user_script: 9: -READONLY You can't write", True),
            ("UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)", True),
            ("NOGROUP No such key 'inference:outbox:jsonl' or consumer group 'relay' in XREADGROUP", True),
            ("ERR Error running script (call to f_0): @user_script:9: attempt to index a nil value", False),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", False),
        ],
    )
    def test_what_passes_is_told_from_a_fault_of_ours(self, answer: str, passes: bool) -> None:
        """Answers as Redis 6.2 and later word them."""
        with pytest.raises(ServiceUnavailable if passes else redis.ResponseError), unavailable_when_down():
            raise redis.ResponseError(answer)

    def test_a_replica_that_lost_its_primary_does_not_answer_and_is_unavailable(self, own_server: RedisServer) -> None:
        with connect(own_server.url) as client:
            store = RedisTaskStore(client, StorePolicy())
            (task_id,) = accept_many(store, 1)
            client.config_set("replica-serve-stale-data", "no")
            client.execute_command("replicaof", "127.0.0.1", "1")
            with pytest.raises(ServiceUnavailable):
                store.get(task_id)
            client.execute_command("replicaof", "no", "one")
            assert store.get(task_id).status is TaskStatus.QUEUED
