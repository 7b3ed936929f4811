"""Dead letters in the hands of an operator: tasks whose every attempt ended in a dead process."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
import redis
from support.fakes import FakeBroker, FakeObjectStore
from support.samples import a_request
from support.task_pages import ids_of_request

from inference.broker.redis import RedisBroker
from inference.domain import QueueMessage, TaskStatus, TaskSubmission
from inference.errors import ObjectNotFound, ServiceUnavailable, TaskNotFound
from inference.lifecycle import dead_letters
from inference.lifecycle.dead_letters import DeadLetters, move_to_dead_letters
from inference.lifecycle.erasures import erase_objects_left
from inference.storage.protocol import dead_letter_key
from inference.task_store import Accepted
from inference.task_store.redis_store import RedisTaskStore, StorePolicy


class FullStore(RedisTaskStore):
    """Accepts nothing once `is_full` is set, and erases the task `erased_before` before it accepts another."""

    is_full = False
    erased_before = ""

    def accept(self, request: TaskSubmission, **options: Any) -> Accepted:
        if self.erased_before:
            self.erase([self.erased_before], erasure_id="first", owner="", object_keys=[dead_letter_key(self.erased_before)])
        if self.is_full:
            raise ServiceUnavailable("out of memory")
        return super().accept(request, **options)


class Rig:
    def __init__(self, client: redis.Redis, key_prefix: str, *, shares_store: bool = False) -> None:
        self._redis = client
        self._prefix = key_prefix
        self.queue = f"predict.{key_prefix}"
        self.broker = RedisBroker(client, shares_store=True) if shares_store else FakeBroker()
        self.objects = FakeObjectStore()
        self.store = FullStore(client, StorePolicy(key_prefix))
        self.letters = DeadLetters(self.store, self.objects, self.broker)

    def running(self, **changes: Any) -> str:
        request = a_request(queue=self.queue, **changes)
        self.objects.put(request.item.object_key, b"image")
        self.store.accept(request, enqueue=None, max_queue_depth=0)
        self.store.lease("worker", [request.task_id])
        self.store.start("worker", [request.task_id])
        return request.task_id

    def move_to_dead_letters(self, task_id: str) -> bool:
        self.store.note_death("worker", [task_id])
        return move_to_dead_letters(self.store, self.objects, "worker", self.store.get(task_id))

    def dead_letter(self, **changes: Any) -> str:
        task_id = self.running(**changes)
        assert self.move_to_dead_letters(task_id)
        return task_id

    def replay(self, task_id: str) -> str:
        return self.letters.replay(task_id, deadline_s=60, sinks=("kafka",))

    def listed(self) -> list[str]:
        return [record.task_id for record in self.letters.list(10)]

    def queued(self) -> list[QueueMessage]:
        if isinstance(self.broker, FakeBroker):
            return self.broker.queues[self.queue]
        lists = (f"{self.queue}\x06\x16{step}" for step in (3, 6, 9))
        payloads = [payload for key in (self.queue, *lists) for payload in self._redis.lrange(key, 0, -1)]
        bodies = (orjson.loads(base64.b64decode(orjson.loads(payload)["body"])) for payload in payloads)
        return [QueueMessage.from_kwargs(kwargs) for _, kwargs, _ in bodies]

    def expires_in_ms(self, task_id: str) -> Any:
        """-1 for a record that is kept."""
        return self._redis.pttl(f"{self._prefix}:task:{task_id}")


@pytest.fixture(params=[True, False], ids=["redis broker", "other broker"])
def rig(request: pytest.FixtureRequest, redis_client: redis.Redis, key_prefix: str) -> Rig:
    return Rig(redis_client, key_prefix, shares_store=request.param)


class TestBury:
    def test_it_ends_as_a_failure_and_its_input_is_kept(self, rig: Rig) -> None:
        task_id = rig.dead_letter()
        record = rig.store.get(task_id)
        assert (record.status, rig.listed()) == (TaskStatus.FAILED, [task_id])
        assert record.outcome is not None
        assert record.outcome.error is not None
        assert (record.outcome.error["code"], record.outcome.error["task_id"]) == ("predictor_died", task_id)
        assert "1 attempts" in record.outcome.error["detail"]
        assert rig.objects.get(dead_letter_key(task_id)) == b"image"

    def test_an_input_that_came_with_the_record_is_kept_although_its_upload_failed(self, rig: Rig) -> None:
        task_id = rig.running(image=b"small image")
        rig.objects.delete(rig.store.get(task_id).item.object_key)
        assert rig.move_to_dead_letters(task_id)
        assert rig.objects.get(dead_letter_key(task_id)) == b"small image"

    def test_without_its_input_it_says_so(self, rig: Rig) -> None:
        task_id = rig.running()
        rig.objects.objects.clear()
        assert rig.move_to_dead_letters(task_id)
        outcome = rig.store.get(task_id).outcome
        assert outcome is not None
        assert outcome.error is not None
        assert "its input is gone" in outcome.error["detail"]

    def test_an_input_that_cannot_be_copied_now_keeps_the_task_open(self, rig: Rig) -> None:
        task_id = rig.running()
        rig.objects.available = False
        with pytest.raises(ServiceUnavailable):
            rig.move_to_dead_letters(task_id)
        assert rig.store.get(task_id).status is TaskStatus.RUNNING
        assert rig.listed() == []

    def test_a_task_of_another_holder_is_no_dead_letter(self, rig: Rig) -> None:
        task_id = rig.running()
        rig.store.cancel(task_id)
        assert not rig.move_to_dead_letters(task_id)
        assert dead_letter_key(task_id) not in rig.objects.objects
        assert rig.store.get(task_id).status is TaskStatus.CANCELED
        assert rig.listed() == []


class TestList:
    def test_the_oldest_come_first(self, rig: Rig) -> None:
        ids = [rig.dead_letter() for _ in range(3)]
        assert [record.task_id for record in rig.letters.list(2)] == ids[:2]
        assert rig.listed() == ids

    def test_however_many_there_are_each_is_listed_once(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dead_letters, "_RECORDS", 5)
        ids = [rig.dead_letter() for _ in range(11)]
        assert [record.task_id for record in rig.letters.list(20)] == ids


class TestReplay:
    def test_it_is_a_new_task_of_the_same_request_and_input(self, rig: Rig) -> None:
        old = rig.dead_letter(request_id="ensemble-1")
        new = rig.replay(old)
        assert new != old
        record = rig.store.get(new)
        assert (record.status, record.request_id, record.queue) == (TaskStatus.QUEUED, "ensemble-1", rig.queue)
        assert (record.replay_of, rig.store.get(old).replay_of) == (old, "")
        assert record.deadline_at_ms - record.created_at_ms == 60_000
        assert (record.model, record.item.header) == (rig.store.get(old).model, rig.store.get(old).item.header)
        assert rig.objects.get(record.item.object_key) == b"image"
        assert ids_of_request(rig.store, "ensemble-1") == [new, old]  # newest first

    def test_it_has_the_owner_of_the_first(self, rig: Rig) -> None:
        assert [rig.store.get(rig.replay(rig.dead_letter(owner=owner))).owner for owner in ("alice", "")] == ["alice", ""]

    def test_its_message_is_on_the_queue_once(self, rig: Rig) -> None:
        new = rig.replay(rig.dead_letter())
        (message,) = rig.queued()
        assert message.items == (rig.store.get(new).item,)
        assert message.model == rig.store.get(new).model

    def test_the_upload_need_not_be_there_any_more(self, rig: Rig) -> None:
        old = rig.dead_letter()
        rig.objects.delete(rig.store.get(old).item.object_key)
        assert rig.objects.get(rig.store.get(rig.replay(old)).item.object_key) == b"image"

    def test_the_dead_letter_stays_as_it_ended_and_is_none_any_more(self, rig: Rig) -> None:
        old = rig.dead_letter()
        rig.replay(old)
        assert (rig.store.get(old).status, rig.listed()) == (TaskStatus.FAILED, [])
        with pytest.raises(TaskNotFound):
            rig.replay(old)
        assert rig.broker.get_depth(rig.queue) == 1

    def test_a_replay_that_dies_again_is_a_dead_letter_with_its_input(self, rig: Rig) -> None:
        new = rig.replay(rig.dead_letter())
        rig.store.lease("worker", [new])
        rig.store.start("worker", [new])
        assert rig.move_to_dead_letters(new)
        assert rig.listed() == [new]
        assert rig.objects.get(dead_letter_key(new)) == b"image"

    def test_a_replay_that_is_refused_loses_nothing(self, rig: Rig) -> None:
        old = rig.dead_letter()
        rig.store.is_full = True
        with pytest.raises(ServiceUnavailable):
            rig.replay(old)
        assert rig.listed() == [old]
        rig.store.is_full = False
        assert rig.store.get(rig.replay(old)).status is TaskStatus.QUEUED

    def test_one_that_is_erased_meanwhile_leaves_nothing_that_runs(
        self, rig: Rig, redis_client: redis.Redis, key_prefix: str
    ) -> None:
        old = rig.dead_letter(owner="alice")
        rig.store.erased_before = old
        with pytest.raises(TaskNotFound):
            rig.replay(old)
        assert rig.broker.get_depth(rig.queue) == len(rig.queued()) == 0
        assert [key for kind in ("task", "owner:alice:idempotency") for key in redis_client.keys(f"{key_prefix}:{kind}:*")] == []
        erase_objects_left(rig.store, rig.objects)
        assert [name for name in rig.objects.objects if old not in name] == []

    def test_one_that_is_erased_before_it_is_discarded_leaves_nothing_that_runs(
        self, rig: Rig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old = rig.dead_letter()

        def erase(task_id: str) -> None:
            rig.store.erase([task_id], erasure_id="first", owner="", object_keys=[dead_letter_key(task_id)])
            raise TaskNotFound(task_id)

        monkeypatch.setattr(rig.letters, "discard", erase)
        with pytest.raises(TaskNotFound, match="erased meanwhile"):
            rig.replay(old)
        assert rig.broker.get_depth(rig.queue) == len(rig.queued()) == 0

    @pytest.mark.parametrize("make", [lambda _: "nobody", lambda rig: rig.running()])
    def test_what_is_no_dead_letter_is_not_replayed(self, rig: Rig, make: Any) -> None:
        with pytest.raises(TaskNotFound):
            rig.replay(make(rig))
        assert rig.broker.get_depth(rig.queue) == 0


class TestDiscard:
    def test_its_input_goes_and_its_record_later(self, rig: Rig) -> None:
        task_id = rig.dead_letter()
        rig.letters.discard(task_id)
        assert rig.listed() == []
        with pytest.raises(ObjectNotFound):
            rig.objects.get(dead_letter_key(task_id))
        assert rig.store.get(task_id).status is TaskStatus.FAILED
        assert rig.expires_in_ms(task_id) > 0

    def test_what_is_no_dead_letter_is_not_discarded(self, rig: Rig) -> None:
        task_id = rig.dead_letter()
        rig.letters.discard(task_id)
        for unknown in (task_id, "nobody", rig.running()):
            with pytest.raises(TaskNotFound):
                rig.letters.discard(unknown)


def test_the_oldest_are_discarded_where_there_are_too_many(redis_client: redis.Redis, key_prefix: str) -> None:
    rig = Rig(redis_client, key_prefix)
    task_ids = [rig.dead_letter() for _ in range(4)]
    assert rig.letters.discard_oldest(4) == 0
    assert rig.listed() == task_ids
    assert rig.letters.discard_oldest(1) == 3
    assert rig.listed() == task_ids[3:]
    assert [rig.objects.objects.get(dead_letter_key(task_id)) for task_id in task_ids] == [None, None, None, b"image"]
