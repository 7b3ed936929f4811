"""The task store on a Redis server that forgets scripts, is down, starts again, is full or is a replica."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from redis_tasks import accept_many, start
from support.redis_server import RedisServer, client_of_nobody, own_redis_server
from support.samples import QUEUE, a_request, a_success

from inference.domain import TaskStatus
from inference.errors import ServiceUnavailable
from inference.rollout.worker_registry import WorkerInfo, WorkerPresence
from inference.runtime.redis import connect, unavailable_when_down
from inference.task_store import Commit, TaskFilter
from inference.task_store.outbox import Outbox, outbox_stats, relays_of
from inference.task_store.redis_store import RedisTaskStore, StorePolicy

ALL = 1000


@pytest.fixture
def store(redis_client: redis.Redis, key_prefix: str) -> RedisTaskStore:
    return RedisTaskStore(redis_client, StorePolicy(key_prefix))


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    with own_redis_server() as server:
        yield server


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
            lambda store: store.list_tasks(TaskFilter("request")),
            lambda store: store.list_tasks(TaskFilter()),
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
