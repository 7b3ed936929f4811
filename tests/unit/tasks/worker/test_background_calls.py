"""Calls of the main loop to the record store: ends of tasks that ended elsewhere, and the end of those that are revoked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from pipeline_rig import Outage, Rig, wait_until

from inference.broker.rejected import RejectedMessages
from inference.domain import Outcome, TaskStatus
from inference.task_store.redis_store import RedisTaskStore
from tasks.pipeline.jobs import Ending, ItemEnd
from tasks.worker.background_calls import BackgroundStoreCalls, Ends

DROPPED = ItemEnd(Ending.DROPPED)


class Desk:
    """BackgroundStoreCalls on a store that can be taken down, and what came of them."""

    def __init__(self, store: RedisTaskStore, rejected: RejectedMessages) -> None:
        self.store: Any = Outage(store)
        self.rejected = rejected
        self.store_calls = BackgroundStoreCalls(self.store, rejected)
        self.resolved: list[Ends] = []

    def resolve(self, ends: Ends) -> dict[str, ItemEnd]:
        self.store_calls.resolve_outcomes(ends, self.resolved.append)
        wait_until(lambda: self.resolved, "the answer")
        return dict(self.resolved.pop())


@pytest.fixture
def desk(store: RedisTaskStore, redis_client: redis.Redis, key_prefix: str) -> Iterator[Desk]:
    desk = Desk(store, RejectedMessages(redis_client, key_prefix))
    desk.store_calls.start()
    yield desk
    desk.store_calls.stop()
    assert desk.store_calls.join(10)


def code_of(end: ItemEnd) -> str:
    assert end.outcome is not None
    assert end.outcome.error is not None
    return str(end.outcome.error["code"])


def test_a_task_that_was_canceled_says_so(desk: Desk, rig: Rig) -> None:
    task_id = rig.accept(1)
    desk.store.cancel(task_id)
    end = desk.resolve({task_id: DROPPED})[task_id]
    assert (end.ending, code_of(end)) == (Ending.DROPPED, "task_canceled")


def test_a_task_that_another_worker_ended_says_how_and_how_long_it_ran(desk: Desk, rig: Rig) -> None:
    rig.await_done(rig.send(3))
    task_id = rig.task_id(3)
    end = desk.resolve({task_id: DROPPED})[task_id]
    assert end.outcome is not None
    assert end.outcome.result is not None
    assert end.outcome.result.class_index == 3
    record = rig.record(3)
    assert end.runtime_s == (record.finished_at_ms - record.started_at_ms) / 1000


def test_a_task_whose_deadline_has_passed_is_expired_by_the_question_and_the_log_says_so(
    desk: Desk, rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "inference.lifecycle.task_log")
    task_id = rig.accept(1, deadline_s=0.001)
    assert code_of(desk.resolve({task_id: DROPPED})[task_id]) == "deadline_exceeded"
    assert rig.record(1).status == "expired"
    (said,) = caplog.messages
    assert said.startswith(f"task {task_id} expired: its deadline passed 0.")
    assert said.endswith("it waited, and no attempt had begun")


def test_a_task_that_another_worker_has_stays_open(desk: Desk, rig: Rig) -> None:
    task_id = rig.accept(1)
    desk.store.lease("other-worker", [task_id])
    assert desk.resolve({task_id: DROPPED}) == {task_id: DROPPED}


def test_a_task_without_a_record_is_a_failure(desk: Desk) -> None:
    assert code_of(desk.resolve({"nobody": DROPPED})["nobody"]) == "task_not_found"


def test_what_this_worker_ended_is_not_asked_for(desk: Desk) -> None:
    desk.store.take_down("get_many")
    ends = {"mine": ItemEnd(Ending.COMMITTED, Outcome(TaskStatus.FAILED, error={"code": "x", "detail": "y"}))}
    assert desk.resolve(ends) == ends
    assert not desk.store.refused


def test_answers_wait_for_a_store_that_is_down_and_come_in_order(desk: Desk, rig: Rig) -> None:
    task_ids = [rig.accept(number) for number in range(3)]
    desk.store.take_down("get_many")
    desk.store_calls.cancel(task_ids, running=False)
    desk.store_calls.resolve_outcomes(dict.fromkeys(task_ids, DROPPED), desk.resolved.append)
    wait_until(lambda: desk.store.refused["get_many"], "a refused question")
    assert desk.resolved == []
    desk.store.bring_up()
    wait_until(lambda: desk.resolved, "the answer")
    assert {code_of(end) for end in desk.resolved[0].values()} == {"task_canceled"}


def test_a_revoke_ends_what_waits_and_spares_what_runs(desk: Desk, rig: Rig) -> None:
    waiting, running = rig.accept(1), rig.accept(2)
    desk.store.lease("w", [running])
    desk.store.start("w", [running])
    desk.store_calls.cancel([waiting, running, "nobody"], running=False)
    wait_until(lambda: rig.record(1).status == "canceled", "the canceled task")
    assert rig.record(2).status == "running"
    desk.store_calls.cancel([waiting, running], running=True)
    wait_until(lambda: rig.record(2).status == "canceled", "the other canceled task")


def test_a_call_that_fails_in_an_unknown_way_does_not_end_the_thread(
    desk: Desk, rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Ends) -> None:
        raise KeyError("unknown")

    desk.store_calls.resolve_outcomes({rig.accept(1): DROPPED}, fail)
    gone = desk.resolve({"no-task": DROPPED})["no-task"]
    assert code_of(gone) == "task_not_found"
    assert "a call of the task store failed" in caplog.text


def test_a_message_is_put_aside_before_it_is_taken_from_its_queue(desk: Desk) -> None:
    kept: list[int] = []
    desk.store_calls.put_aside("predict.digits", {"unreadable": "junk"}, "no reason", lambda: kept.append(desk.rejected.count()))
    wait_until(lambda: kept, "the message to be kept")
    assert kept == [1]
    (message,) = desk.rejected.list(10)
    assert (message.queue, message.reason, message.content) == ("predict.digits", "no reason", {"unreadable": "junk"})
