"""Replies to callers who wait for a result: by message, and from the record when the message got lost."""

from __future__ import annotations

import itertools
import logging
import struct
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pytest
import redis
from support.redis_server import RedisServer, own_redis_server
from support.samples import a_failure, a_request, a_success
from support.waiting import TIMEOUT_S, together, until

from inference.domain import CompletedTask, TaskStatus, encode_outcome
from inference.errors import ServiceUnavailable
from inference.lifecycle.replies import ReplyRouter, parse_frames
from inference.runtime.redis import connect
from inference.task_store import Commit
from inference.task_store.redis_store import RedisTaskStore, StorePolicy


def frame(task_id: str, finished_at_ms: int, outcome: bytes) -> bytes:
    head = struct.pack(">IQ", len(task_id.encode()), finished_at_ms)
    return head + task_id.encode() + struct.pack(">I", len(outcome)) + outcome


class TestFrames:
    def test_many_results_in_one_message(self) -> None:
        frames = [("t1", 1, b"outcome"), ("größer", 2**41, b""), ("t3", 0, b"\n" * 4000)]
        assert list(parse_frames(b"".join(itertools.starmap(frame, frames)))) == frames

    def test_an_empty_message_has_none(self) -> None:
        assert list(parse_frames(b"")) == []


class Rig:
    """A router, and the worker that answers it."""

    def __init__(self, client: redis.Redis, store: RedisTaskStore, key_prefix: str) -> None:
        self.client = client
        self.store = store
        self.router = ReplyRouter(client, store, key_prefix)

    def accept(self, *, reply_to: str | None = None) -> str:
        """A task that a worker has started."""
        request = a_request(reply_to=self.router.channel if reply_to is None else reply_to)
        self.store.accept(request, enqueue=None, max_queue_depth=0)
        self.store.lease("w", [request.task_id])
        self.store.start("w", [request.task_id])
        return request.task_id

    def finish(self, *task_ids: str) -> None:
        assert all(self.store.commit("w", [Commit(task_id, 1, a_success()) for task_id in task_ids]))

    def subscribers(self) -> int:
        ((_, count),) = self.client.pubsub_numsub(self.router.channel)
        return int(count)

    def subscribed(self) -> None:
        until(lambda: self.subscribers() == 1, "the subscription")

    def close(self) -> None:
        self.router.stop()
        thread = self.router._thread
        if thread is not None:
            until(lambda: self._has_ended(thread), "the end of the reply thread")

    def _has_ended(self, thread: Any) -> bool:
        self.client.publish(self.router.channel, b"")  # wakes it
        thread.join(0.01)
        return not thread.is_alive()


@pytest.fixture
def rig(redis_client: redis.Redis, key_prefix: str) -> Iterator[Rig]:
    rig = Rig(redis_client, RedisTaskStore(redis_client, StorePolicy(key_prefix)), key_prefix)
    yield rig
    rig.close()


class UnreadableStore(RedisTaskStore):
    """Store of records that cannot be read while `error` is set."""

    error: Exception | None = None
    reads = 0

    def get_completed(self, task_ids: Sequence[str]) -> list[CompletedTask | None]:
        self.reads += 1
        if self.error is not None:
            raise self.error
        return super().get_completed(task_ids)


class TestWaiting:
    def test_a_message_ends_the_wait(self, redis_client: redis.Redis, key_prefix: str) -> None:
        """The records cannot be read, so that it is the message that brought it."""
        store = UnreadableStore(redis_client, StorePolicy(key_prefix))
        rig = Rig(redis_client, store, key_prefix)
        first, second = rig.accept(), rig.accept()
        finished_at_ms = []
        with rig.router.expect(first) as one, rig.router.expect(second) as two:
            rig.subscribed()
            store.error = ServiceUnavailable("the records cannot be read")
            rig.finish(first, second)
            for waiter in (one, two):
                outcome = waiter.wait(TIMEOUT_S)
                assert outcome is not None
                assert outcome.status is TaskStatus.SUCCEEDED
                finished_at_ms.append(waiter.finished_at_ms)
        rig.close()
        store.error = None
        assert finished_at_ms == [store.get(task_id).finished_at_ms for task_id in (first, second)]

    def test_a_result_that_cannot_be_read_takes_no_other_with_it(self, rig: Rig) -> None:
        first, second = rig.accept(reply_to=""), rig.accept(reply_to="")
        with rig.router.expect(first) as one, rig.router.expect(second) as two:
            rig.subscribed()
            rig.client.publish(rig.router.channel, frame(first, 1, encode_outcome(a_success())) + frame(second, 1, b"no outcome"))
            rig.finish(first, second)
            for waiter in (one, two):
                assert waiter.wait(TIMEOUT_S) is not None

    def test_everyone_who_waits_for_a_task_gets_it(self, rig: Rig) -> None:
        task_id = rig.accept()
        waiters = [rig.router.expect(task_id) for _ in range(5)]
        rig.router.forget(waiters.pop())
        rig.finish(task_id)
        outcomes = together([partial(waiter.wait, TIMEOUT_S) for waiter in waiters])
        assert [outcome and outcome.status for outcome in outcomes] == [TaskStatus.SUCCEEDED] * 4

    def test_a_result_whose_message_went_elsewhere_comes_from_the_record(self, rig: Rig) -> None:
        task_id = rig.accept(reply_to="")
        with rig.router.expect(task_id) as waiter:
            rig.subscribed()
            rig.finish(task_id)
            assert waiter.wait(TIMEOUT_S) is not None
            assert waiter.finished_at_ms == rig.store.get(task_id).finished_at_ms

    def test_a_result_that_was_there_before_comes_from_the_record(self, rig: Rig) -> None:
        task_id = rig.accept()
        rig.finish(task_id)
        with rig.router.expect(task_id) as waiter:
            assert waiter.wait(TIMEOUT_S) is not None

    @pytest.mark.parametrize("end", [TaskStatus.CANCELED, TaskStatus.FAILED])
    def test_every_end_ends_the_wait(self, rig: Rig, end: TaskStatus) -> None:
        task_id = rig.accept()
        with rig.router.expect(task_id) as waiter:
            if end is TaskStatus.CANCELED:
                rig.store.cancel(task_id)
            else:
                rig.store.commit("w", [Commit(task_id, 1, a_failure())])
            outcome = waiter.wait(TIMEOUT_S)
        assert outcome is not None
        assert (outcome.status, outcome.result) == (end, None)

    def test_when_the_time_is_up_there_is_none(self, rig: Rig) -> None:
        with rig.router.expect(rig.accept()) as waiter:
            assert waiter.wait(0) is None
            assert waiter.wait(0.01) is None

    def test_a_waiter_that_left_is_forgotten(self, rig: Rig) -> None:
        task_id = rig.accept()
        with rig.router.expect(task_id) as waiter:
            rig.router.forget(waiter)
        with rig.router.expect(task_id):
            pass
        assert rig.router._waiters == {}

    def test_a_task_that_nobody_knows_harms_no_one(self, rig: Rig) -> None:
        task_id = rig.accept()
        with rig.router.expect("nobody") as nobody, rig.router.expect(task_id) as waiter:
            rig.finish(task_id)
            assert waiter.wait(TIMEOUT_S) is not None
            assert nobody.wait(0) is None

    def test_routers_do_not_hear_each_other(self, rig: Rig, key_prefix: str) -> None:
        assert ReplyRouter(rig.client, rig.store, key_prefix).channel != rig.router.channel


class TestWaitingForMany:
    def test_the_wait_ends_with_the_last(self, rig: Rig) -> None:
        ids = [rig.accept() for _ in range(5)]
        with rig.router.expect_all(ids) as waiter:
            rig.subscribed()
            rig.finish(*ids[:4])
            until(lambda: len(waiter.ended) == 4, "the first four")
            assert not waiter.wait_for_all(0.01)
            rig.finish(ids[4])
            assert waiter.wait_for_all(TIMEOUT_S)
            assert {ended.outcome.status for ended in waiter.ended.values()} == {TaskStatus.SUCCEEDED}
            assert waiter.ended[ids[4]].finished_at_ms == rig.store.get(ids[4]).finished_at_ms
        assert rig.router._waiters == {}

    def test_of_those_whose_messages_went_elsewhere_the_records_say_it(self, rig: Rig) -> None:
        here, elsewhere = rig.accept(), rig.accept(reply_to="nowhere")
        with rig.router.expect_all([here, elsewhere]) as waiter:
            rig.subscribed()
            rig.finish(here, elsewhere)
            assert waiter.wait_for_all(TIMEOUT_S)

    def test_what_has_come_is_not_looked_for_again(self, rig: Rig) -> None:
        ids = [rig.accept() for _ in range(3)]
        with rig.router.expect_all(ids):
            rig.subscribed()
            rig.finish(*ids[:2])
            until(lambda: set(rig.router._waiters) == {ids[2]}, "the replies")

    def test_what_the_records_say_already(self, rig: Rig) -> None:
        ended, runs = rig.accept(reply_to=""), rig.accept(reply_to="")
        rig.finish(ended)
        with rig.router.expect_all([ended, runs, "gone"]) as waiter:
            waiter.take_ends(rig.store.get_many(waiter.task_ids))
            assert waiter.ended[ended].outcome.status is TaskStatus.SUCCEEDED
            assert waiter.ended["gone"].outcome.error is not None
            assert waiter.ended["gone"].outcome.error["code"] == "task_not_found"
            assert not waiter.wait_for_all(0)

    def test_nothing_to_wait_for(self, rig: Rig) -> None:
        with rig.router.expect_all([]) as waiter:
            assert waiter.wait_for_all(0)

    def test_one_who_waits_for_many_and_one_for_one_both_get_it(self, rig: Rig) -> None:
        ids = [rig.accept() for _ in range(2)]
        with rig.router.expect_all(ids) as many, rig.router.expect(ids[0]) as one:
            rig.finish(*ids)
            assert many.wait_for_all(TIMEOUT_S)
            assert one.wait(TIMEOUT_S) is not None


class TestFaults:
    def test_a_message_that_is_none_does_not_end_the_listening(self, rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
        task_id = rig.accept()
        with rig.router.expect(task_id) as waiter:
            rig.subscribed()
            with caplog.at_level(logging.CRITICAL, logger="inference.lifecycle.replies"):
                rig.client.publish(rig.router.channel, b"no frame")
                rig.client.publish(rig.router.channel, frame("nobody", 1, b"no outcome"))
                rig.finish(task_id)
                assert waiter.wait(TIMEOUT_S) is not None

    def test_a_connection_that_is_killed_is_made_again(self, rig: Rig) -> None:
        lost, later = rig.accept(reply_to="nowhere"), rig.accept()
        with rig.router.expect(lost) as first, rig.router.expect(later) as second:
            rig.subscribed()
            rig.client.client_kill_filter(_type="pubsub")
            rig.finish(lost)
            assert first.wait(TIMEOUT_S) is not None
            rig.subscribed()
            rig.finish(later)
            assert second.wait(TIMEOUT_S) is not None

    def test_killing_it_again_and_again_loses_no_result(self, rig: Rig) -> None:
        ids = [rig.accept() for _ in range(10)]
        waiters = [rig.router.expect(task_id) for task_id in ids]
        for task_id in ids:
            rig.client.client_kill_filter(_type="pubsub")
            rig.finish(task_id)
        assert all(waiter.wait(TIMEOUT_S) for waiter in waiters)

    @pytest.mark.parametrize("error", [redis.ResponseError("NOPERM no permissions"), RuntimeError("a fault of ours")])
    def test_no_error_ends_the_thread_that_everyone_waits_for(
        self, redis_client: redis.Redis, key_prefix: str, error: Exception, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = UnreadableStore(redis_client, StorePolicy(key_prefix))
        rig = Rig(redis_client, store, key_prefix)
        task_id = rig.accept()
        with rig.router.expect(task_id) as waiter, caplog.at_level(logging.CRITICAL, logger="inference.lifecycle.replies"):
            rig.subscribed()
            store.error = error
            reads = store.reads
            until(lambda: store.reads >= reads + 2, "two looks at the records that fail")
            store.error = None
            rig.finish(task_id)
            assert waiter.wait(TIMEOUT_S) is not None
        rig.close()


class TestServerDown:
    @pytest.fixture
    def server(self) -> Iterator[RedisServer]:
        with own_redis_server() as server:
            yield server

    def test_a_server_that_starts_again_answers_those_who_wait(self, server: RedisServer) -> None:
        with connect(server.url) as client:
            rig = Rig(client, RedisTaskStore(client, StorePolicy()), "inference")
            before, after = rig.accept(), rig.accept()
            with rig.router.expect(before) as first, rig.router.expect(after) as second:
                rig.subscribed()
                rig.finish(before)
                server.stop()
                server.start()
                rig.finish(after)
                assert first.wait(TIMEOUT_S) is not None
                assert second.wait(TIMEOUT_S) is not None
            rig.close()


def test_an_outcome_travels_in_a_frame() -> None:
    ((task_id, finished_at_ms, outcome),) = parse_frames(frame("t", 7, encode_outcome(a_failure())))
    assert (task_id, finished_at_ms, outcome) == ("t", 7, encode_outcome(a_failure()))
