"""Behaviour of the store on Redis alone: races between connections, reply messages, keys that end."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import redis
from redis_tasks import accept_many, start
from support.samples import QUEUE, a_failure, a_request, a_success
from support.waiting import TIMEOUT_S, together, until

from inference.domain import TaskStatus, decode_outcome
from inference.errors import TaskAlreadyFinished
from inference.lifecycle.replies import parse_frames
from inference.task_store import Commit, Enqueue, LeaseState
from inference.task_store.redis_store import RedisTaskStore, StorePolicy

ALL = 1000


@pytest.fixture
def store(redis_client: redis.Redis, key_prefix: str) -> RedisTaskStore:
    return RedisTaskStore(redis_client, StorePolicy(key_prefix))


@pytest.fixture
def hasty(redis_client: redis.Redis, key_prefix: str) -> RedisTaskStore:
    """A store whose leases run out while a test looks."""
    return RedisTaskStore(redis_client, StorePolicy(key_prefix, lease_s=0.05))


def commit(store: RedisTaskStore, holder: str, commits: list[Commit]) -> list[str]:
    """Return the ids of the written ones."""
    return [one.task_id for one, written in zip(commits, store.commit(holder, commits), strict=True) if written]


def start_and_commit(store: RedisTaskStore, holder: str, task_ids: list[str]) -> list[str]:
    return commit(store, holder, start(store, holder, task_ids))


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
    """All writers of the same tasks, until each has ended. Each returns the ids of the tasks that it ended."""

    def __init__(self, store: RedisTaskStore, task_ids: list[str]) -> None:
        self._store = store
        self._task_ids = task_ids
        self._give_up_at = time.monotonic() + TIMEOUT_S

    def work(self, holder: str, first: int, late: int) -> list[str]:
        """Commits when `late` other batches were begun meanwhile, so that the lease may be gone."""
        begun: deque[list[Commit]] = deque()
        ended: list[str] = []
        for number in self._until_over():
            begun.append(start(self._store, holder, self._window(first + 7 * number)))
            if len(begun) > late:
                ended += commit(self._store, holder, begun.popleft())
        return ended

    def crash(self, holder: str, times: int) -> list[str]:
        """Workers that start tasks and die, one after the other."""
        for number in range(times):
            start(self._store, f"{holder}-{number}", self._window(11 * number))
        return []

    def reap(self, holder: str) -> list[str]:
        for _ in self._until_over():
            self._store.reap(holder, max_attempts=10**6, limit=ALL)
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
        assert endless == {"seq", "tasks", "outbox:jsonl", "outbox:kafka"}  # `tasks` is trimmed by its length
        assert redis_client.xlen(f"{key_prefix}:outbox:jsonl") == 0
        assert not [key for key in keys if ":image:" in key]

    def test_tasks_of_two_prefixes_do_not_meet(self, redis_client: redis.Redis, store: RedisTaskStore, key_prefix: str) -> None:
        (task_id,) = accept_many(store, 1)
        other = RedisTaskStore(redis_client, StorePolicy(f"{key_prefix}-other"))
        assert other.get_many([task_id]) == [None]
        assert other.get_queue_stats(QUEUE).depth == 0
