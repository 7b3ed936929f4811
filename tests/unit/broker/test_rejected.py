"""Messages that no worker could read are kept, within bounds, until an operator decides."""

from __future__ import annotations

import base64

import pytest
import redis
from support.fakes import FakeBroker

from inference.broker import rejected
from inference.broker.envelope import Resent
from inference.broker.rejected import MAX_MESSAGE_BYTES, RejectedMessages
from inference.errors import InvalidRequest, TaskNotFound

CONTENT = {"body": base64.b64encode(b"[]").decode(), "headers": {"task": "x"}, "content_type": "application/json"}
CONTENT |= {"content_encoding": "utf-8", "priority": 9}


@pytest.fixture
def messages(redis_client: redis.Redis, key_prefix: str) -> RejectedMessages:
    return RejectedMessages(redis_client, key_prefix)


def test_a_replayed_message_is_in_its_queue_as_it_was(messages: RejectedMessages) -> None:
    broker = FakeBroker()
    message_id = messages.add("predict.digits", CONTENT, "no reason")
    assert messages.replay(message_id, broker) == "predict.digits"
    assert broker.resent == [("predict.digits", Resent(**CONTENT))]
    assert messages.count() == 0
    with pytest.raises(TaskNotFound):
        messages.get(message_id)


def test_what_is_no_message_is_not_sent_again(messages: RejectedMessages) -> None:
    message_id = messages.add("predict.digits", {"unreadable": "junk"}, "no message")
    with pytest.raises(InvalidRequest, match="no message"):
        messages.replay(message_id, FakeBroker())
    messages.discard(message_id)
    assert messages.list(10) == []


def test_of_a_large_one_the_beginning_is_kept(messages: RejectedMessages) -> None:
    message_id = messages.add("predict.digits", CONTENT | {"body": "A" * MAX_MESSAGE_BYTES}, "no reason")
    kept = messages.get(message_id)
    assert len(kept.content["unreadable"]) <= 1024
    assert "only the beginning of" in kept.reason


def test_the_oldest_give_way(messages: RejectedMessages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejected, "MAX_MESSAGES", 3)
    ids = [messages.add("predict.digits", CONTENT, str(number)) for number in range(5)]
    assert messages.count() == 3
    assert {one.message_id for one in messages.list(10)} == set(ids[2:])


@pytest.mark.parametrize("headers", [{1: "a"}, {"x": float("nan")}, {"x": b"\xff"}, {"x": {"y": {1, 2}}}, {"x": "\ud800"}])
def test_any_header_can_be_kept(messages: RejectedMessages, headers: dict[object, object]) -> None:
    message_id = messages.add("predict.digits", CONTENT | {"headers": headers}, "odd header")
    assert messages.get(message_id).reason.startswith("odd header")
