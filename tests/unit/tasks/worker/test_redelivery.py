"""Messages that come again are taken one at a time, and refused once they have ended too many workers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from pipeline_rig import Inbox, Rig, message_of, queue_item, wait_until
from support.redis_server import client_of_nobody

from inference.broker.rejected import RejectedMessages
from inference.broker.unacknowledged import TakenMessages
from inference.errors import ServiceUnavailable
from inference.lifecycle.dead_letters import DeadLetters
from inference.storage.local import LocalObjectStore
from inference.task_store.redis_store import RedisTaskStore
from tasks.consumer.main_loop import MainLoop
from tasks.worker.background_calls import BackgroundStoreCalls
from tasks.worker.redelivery import MessageDeadLetters, Redeliveries, id_of_redelivered, task_ids_of

MAX_DEATHS = 3


@pytest.fixture
def taken(redis_client: redis.Redis, key_prefix: str) -> TakenMessages:
    return TakenMessages(redis_client, key_prefix)


class Worker:
    """One worker life: what it handled, and what it refused."""

    def __init__(self, holder: str, taken: TakenMessages, store_calls: BackgroundStoreCalls) -> None:
        self.handled: list[str] = []
        self.refused: dict[str, int] = {}
        self.deliveries: dict[str, Inbox] = {}
        self._loop = MainLoop()
        self._redeliveries = Redeliveries(taken, store_calls, self._loop, holder=holder, max_deaths=MAX_DEATHS)

    def take(self, *message_ids: str, is_submitted: bool = True) -> None:
        for message_id in message_ids:
            self._redeliveries.take(
                message_id,
                handle=lambda message_id=message_id: self._handle(message_id, is_submitted),  # type: ignore[misc]
                refuse=lambda deaths, message_id=message_id: self.refused.update({message_id: deaths}),  # type: ignore[misc]
            )

    def _handle(self, message_id: str, is_submitted: bool) -> None:
        self.handled.append(message_id)
        if is_submitted:
            self.deliveries[message_id] = Inbox(message_of(queue_item(1)))
            self._redeliveries.watch(self.deliveries[message_id].delivery)

    def lease(self, message_id: str) -> None:
        self.deliveries[message_id].delivery.on_leased()

    def until(self, condition: Callable[[], Any]) -> None:
        def holds() -> Any:
            self._loop.run_pending()
            return condition()

        wait_until(holds, "what the worker does")

    def lose_connection(self) -> None:
        self._redeliveries.forget_waiting()


MakeWorker = Callable[[str], Worker]


@pytest.fixture
def make(taken: TakenMessages, store: RedisTaskStore, redis_client: redis.Redis, key_prefix: str) -> Iterator[MakeWorker]:
    store_calls = BackgroundStoreCalls(store, RejectedMessages(redis_client, key_prefix))
    store_calls.start()
    yield lambda holder: Worker(holder, taken, store_calls)
    store_calls.stop()
    assert store_calls.join(10)


class TestNotes:
    def test_only_other_workers_that_did_not_take_it_well_count(self, taken: TakenMessages) -> None:
        assert [taken.take("m", worker) for worker in ("a", "a", "b", "b", "c")] == [0, 0, 1, 1, 2]
        taken.forget("m")
        assert [taken.take("m", worker) for worker in ("d", "e")] == [0, 1]

    @pytest.mark.parametrize("message_id", ["", "x" * 10_000, "a:b\n\0", "\ud800"])
    def test_any_id_will_do(self, taken: TakenMessages, message_id: str) -> None:
        assert [taken.take(message_id, worker) for worker in ("a", "b")] == [0, 1]

    def test_they_do_not_stay_for_ever(self, taken: TakenMessages, redis_client: redis.Redis, key_prefix: str) -> None:
        taken.take("m", "a")
        (key,) = redis_client.keys(f"{key_prefix}:taken:*")
        assert 0 < redis_client.ttl(key) <= 86_400

    def test_a_store_that_is_down_is_said_to_be(self, tmp_path: Any) -> None:
        with client_of_nobody(tmp_path) as client:
            for call in (lambda: TakenMessages(client, "x").take("m", "a"), lambda: TakenMessages(client, "x").forget("m")):
                with pytest.raises(ServiceUnavailable):
                    call()


class TestTaking:
    def test_each_waits_until_the_one_before_is_leased(self, make: MakeWorker) -> None:
        worker = make("a")
        worker.take("one", "two")
        worker.until(lambda: worker.handled)
        assert worker.handled == ["one"]
        worker.lease("one")
        worker.until(lambda: worker.handled == ["one", "two"])

    def test_what_is_not_submitted_holds_up_nobody(self, make: MakeWorker) -> None:
        worker = make("a")
        worker.take("refused, or for later", "another", is_submitted=False)
        worker.until(lambda: len(worker.handled) == 2)

    def test_only_what_a_worker_takes_as_it_ends_counts(self, make: MakeWorker, taken: TakenMessages) -> None:
        for holder in ("a", "b", "c", "d"):
            worker = make(holder)
            worker.take("killer", "innocent")
            worker.until(lambda worker=worker: worker.handled or worker.refused)  # and it ends
        assert worker.refused == {"killer": 3}
        worker.until(lambda: worker.handled)
        assert worker.handled == ["innocent"]
        worker.lease("innocent")
        worker.until(lambda: taken.take("innocent", "e") == 0)

    def test_restarts_and_what_was_leased_count_for_nothing(self, make: MakeWorker) -> None:
        for number in range(10):
            worker = make(f"worker-{number}")
            worker.take("one", "two")
            worker.until(lambda worker=worker: worker.handled)
            worker.lease("one")
            worker.until(lambda worker=worker: len(worker.handled) == 2)
            worker.lease("two")
            worker.until(lambda: True)
            assert worker.refused == {}

    def test_what_was_refused_is_refused_again_should_the_worker_end_meanwhile(self, make: MakeWorker) -> None:
        for holder in ("a", "b", "c", "d", "e", "f"):
            worker = make(holder)
            worker.take("killer")
            worker.until(lambda worker=worker: worker.handled or worker.refused)
        assert worker.refused == {"killer": 5}

    def test_messages_of_a_lost_connection_are_dropped(self, make: MakeWorker) -> None:
        worker = make("a")
        worker.take("one", "two")
        worker.lose_connection()
        worker.take("three")
        worker.until(lambda: worker.handled)
        worker.lease("one")
        worker.until(lambda: worker.handled == ["one", "three"])


class TestMessageDeadLetters:
    def test_tasks_are_dead_letters_that_may_run_again(self, rig: Rig, store: RedisTaskStore, objects: LocalObjectStore) -> None:
        task_id = rig.accept(1)
        assert MessageDeadLetters(store, objects, "me").move_to_dead_letters([task_id], "3 workers ended while they took it")
        record = store.get(task_id)
        assert record.outcome is not None
        assert record.outcome.error is not None
        assert (record.status, record.outcome.error["code"]) == ("failed", "predictor_died")
        assert record.outcome.error["detail"] == "3 workers ended while they took it; the input is kept for the operator"
        broker = SimpleNamespace(prepare=lambda *_, **__: None, publish=lambda *_, **__: None)
        new_id = DeadLetters(store, objects, broker).replay(task_id, deadline_s=60, sinks=())  # type: ignore[arg-type]
        assert store.get(new_id).status == "queued"

    def test_others_tasks_go_on_and_a_task_without_a_record_is_told(
        self, rig: Rig, store: RedisTaskStore, objects: LocalObjectStore
    ) -> None:
        held = rig.accept(1)
        store.lease("another", [held])
        dead_letters = MessageDeadLetters(store, objects, "me")
        assert dead_letters.move_to_dead_letters([held], "why")
        assert not dead_letters.move_to_dead_letters([held, "unknown"], "why")
        assert not dead_letters.move_to_dead_letters([], "why")
        assert store.renew("another", [held]) == [True]


def message(body: Any = b"", *, redelivered: Any = True, **headers: Any) -> Any:
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return SimpleNamespace(body=body, headers=headers, delivery_info={"redelivered": redelivered})


def test_a_message_that_came_before_is_known() -> None:
    assert id_of_redelivered(message(id="m")) == "m"
    assert id_of_redelivered(message(id="m", redelivered=False)) is None
    assert id_of_redelivered(message(id=["m"])) is None
    assert id_of_redelivered(SimpleNamespace(headers=None, delivery_info=None)) is None


def test_the_tasks_of_a_message_are_known() -> None:
    items = [{"task_id": "a"}, {"object": "x"}]
    assert task_ids_of(message([[], {"items": items}, {}], id="m")) == ["a", "m.1"]
    assert task_ids_of(message([[], {"items": items[1:]}, {}], id="m")) == ["m"]


@pytest.mark.parametrize("body", [b"\xff", b"[" * 100_000, [], [[], {}, {}], [[], {"items": 3}, {}], [[], {"items": ["x"]}, {}]])
def test_a_message_that_cannot_be_read_has_none(body: Any) -> None:
    assert task_ids_of(message(body, id="m")) == []
