"""Erasure of results in the sink: delivered ones, others, and those that another relay is writing."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import redis
from relay_rig import Rig
from support.fakes import FakeSink

from inference.relay.delivery import RelayPolicy
from inference.sinks.protocol import NO_CONTEXTS, Refusal, SinkUnavailable


@pytest.fixture
def rig(redis_client: redis.Redis, key_prefix: str) -> Rig:
    return Rig(redis_client, key_prefix)


def erase(rig: Rig, task_id: str) -> str:
    erasure_id = uuid.uuid4().hex
    assert rig.store.erase([task_id], erasure_id=erasure_id, owner="", object_keys=[]) == [task_id]
    return erasure_id


def state_of(rig: Rig, erasure_id: str) -> str:
    return rig.store.get_erasure(erasure_id).stores["sink"]


@pytest.mark.parametrize(("can_erase", "state"), [(True, "erased"), (False, "cannot")])
def test_a_delivered_result_is_erased_in_the_sink(rig: Rig, can_erase: bool, state: str) -> None:
    rig.sink.can_erase = can_erase
    (first, second), relay = rig.finish(2), rig.relay()
    relay.relay_once(block_ms=1)
    erasure_id = erase(rig, first)
    assert state_of(rig, erasure_id) == "pending"
    relay.relay_once(block_ms=1)
    assert (rig.sink.task_ids, state_of(rig, erasure_id)) == ([second], state)
    assert (rig.waiting(), rig.pending()) == (0, 0)


def test_a_result_that_was_not_delivered_is_never_written(rig: Rig) -> None:
    first, second = rig.finish(2)
    erasure_id = erase(rig, first)
    rig.relay().relay_once(block_ms=1)
    assert (rig.sink.task_ids, state_of(rig, erasure_id)) == ([second], "erased")
    assert (rig.waiting(), rig.pending()) == (0, 0)


def test_an_erasure_waits_for_a_sink_that_is_down(rig: Rig) -> None:
    (task_id,), relay = rig.finish(1), rig.relay()
    relay.relay_once(block_ms=1)
    erasure_id = erase(rig, task_id)
    rig.sink.failures = 1
    with pytest.raises(SinkUnavailable):
        relay.relay_once(block_ms=1)
    assert state_of(rig, erasure_id) == "pending"
    relay.relay_once(block_ms=1)
    assert (rig.sink.task_ids, state_of(rig, erasure_id)) == ([], "erased")


class SlowSink(FakeSink):
    """A sink that is told what to do before it writes."""

    def __init__(self, before_write: Callable[[], None]) -> None:
        super().__init__("sink")
        self.before_write = before_write

    def write(self, documents: Sequence[dict[str, Any]], contexts: Mapping[str, str] = NO_CONTEXTS) -> list[Refusal]:
        self.before_write()
        return super().write(documents, contexts)


def test_a_result_that_another_relay_is_writing_is_erased_after_that(rig: Rig) -> None:
    """The relay read the record before the erasure, and writes the document after it."""
    (task_id,) = rig.finish(1)
    policy = RelayPolicy(batch_size=1, reclaim_after_s=3600)
    erasure_ids = []

    def erase_meanwhile() -> None:
        erasure_ids.append(erase(rig, task_id))
        with pytest.raises(SinkUnavailable, match="another relay"):
            other.relay_once(block_ms=1)
        assert state_of(rig, erasure_ids[0]) == "pending"

    slow = SlowSink(erase_meanwhile)
    other = rig.relay("relay-2", sink=slow, policy=policy)
    rig.relay("relay-1", sink=slow, policy=policy).relay_once(block_ms=1)
    assert slow.task_ids == [task_id]
    other.relay_once(block_ms=1)
    assert (slow.task_ids, state_of(rig, erasure_ids[0])) == ([], "erased")
    assert (rig.waiting(), rig.pending()) == (0, 0)
