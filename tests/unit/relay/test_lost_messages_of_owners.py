"""Lost messages where owners take turns: later tasks of another owner that started prove nothing."""

from __future__ import annotations

import pytest
import redis
from support.fake_clock import FakeClock
from support.fakes import FakeBroker, FakeObjectStore
from support.samples import QUEUE, a_message, a_request, a_success
from support.time_travel import let_time_pass

from inference.relay.sweeper import Sweeper, SweepPolicy
from inference.task_store import Commit
from inference.task_store.redis_store import RedisTaskStore, StorePolicy

GRACE_S = 5.0


class TurnsBroker(FakeBroker):
    """Says of which owners it has messages: `owners`."""

    has_turns = True

    def __init__(self) -> None:
        super().__init__()
        self.owners: set[str] = set()

    def get_owners(self, queue: str) -> set[str]:
        return self.owners


class Rig:
    def __init__(self, client: redis.Redis, key_prefix: str, broker: FakeBroker) -> None:
        self._redis, self._prefix = client, key_prefix
        self.broker = broker
        self.store = RedisTaskStore(client, StorePolicy(key_prefix, has_turns=broker.has_turns))
        self._clock = FakeClock()
        policy = SweepPolicy(requeue_lost_after_s=GRACE_S)
        self._sweeper = Sweeper(
            self.store, broker, FakeObjectStore(), holder="sweeper", queues=[QUEUE], policy=policy, clock=self._clock
        )

    def accept(self, owner: str, *, priority: int = 0) -> str:
        request = a_request(owner=owner, priority=priority)
        self.store.accept(request, enqueue=None, max_queue_depth=0)
        return request.task_id

    def run(self, task_id: str) -> None:
        self.store.lease("w", [task_id])
        self.store.start("w", [task_id])
        assert self.store.commit("w", [Commit(task_id, 1, a_success())]) == [True]

    def find(self) -> set[str]:
        """The tasks whose messages two passes publish again, a grace apart, while the queue is not empty."""
        queue = self.broker.queues[QUEUE]
        queue[:] = [a_message(a_request())]
        for _ in range(2):
            self._sweeper.sweep_once()
            self._clock.advance(GRACE_S + 1)
            let_time_pass(self._redis, self._prefix, GRACE_S + 1)
        self._sweeper.sweep_once()
        return {item.task_id for message in queue[1:] for item in message.items}


@pytest.fixture
def broker() -> TurnsBroker:
    return TurnsBroker()


@pytest.fixture
def rig(redis_client: redis.Redis, key_prefix: str, broker: TurnsBroker) -> Rig:
    return Rig(redis_client, key_prefix, broker)


def test_tasks_that_wait_for_their_turn_are_not_lost(rig: Rig, broker: TurnsBroker) -> None:
    for _ in range(3):
        rig.accept("flood")
    rig.run(rig.accept("lab"))
    broker.owners = {"flood"}
    assert rig.find() == set()


def test_a_task_that_a_later_one_of_its_owner_overtook_is_lost(rig: Rig, broker: TurnsBroker) -> None:
    lost = rig.accept("lab")
    rig.accept("flood")
    rig.run(rig.accept("lab"))
    rig.accept("lab")
    broker.owners = {"flood", "lab"}
    assert rig.find() == {lost}


def test_a_higher_priority_overtakes_by_right(rig: Rig, broker: TurnsBroker) -> None:
    lost = rig.accept("lab", priority=9)
    rig.accept("lab")
    rig.run(rig.accept("lab", priority=9))
    broker.owners = {"lab"}
    assert rig.find() == {lost}


def test_tasks_of_an_owner_without_messages_are_lost(rig: Rig, broker: TurnsBroker) -> None:
    lost = {rig.accept("lab") for _ in range(2)}
    rig.accept("flood")
    broker.owners = {"flood"}
    assert rig.find() == lost


def test_returned_messages_may_be_of_any_owner(rig: Rig, broker: TurnsBroker) -> None:
    rig.accept("lab")
    broker.owners = {"flood", ""}
    assert rig.find() == set()


def test_without_turns_a_later_task_of_any_owner_overtakes(redis_client: redis.Redis, key_prefix: str) -> None:
    rig = Rig(redis_client, key_prefix, FakeBroker())
    lost = rig.accept("lab")
    rig.run(rig.accept("flood"))
    rig.accept("lab")
    assert rig.find() == {lost}
