"""Random messages of Celery clients: each becomes tasks, or one that says why it is refused; no other exception."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.transport import virtual
from support.fuzzing import BUDGET, as_json, chance_of, fuzz, json_values, mutations, objects, with_budget

from inference.domain import QueueMessage
from inference.errors import InvalidRequest
from inference.models.registry import ModelRegistry
from inference.models.spec import ModelSpec
from inference.rollout.desired_state import DesiredState
from inference.rollout.runtime_config import ConfigSnapshot
from inference.settings import Settings
from tasks.consumer.consumer import _content
from tasks.transport.claiming import ClaimedMessage, _read
from tasks.worker.plain_messages import PlainMessageReader, is_accepted

ITEM = {"object": "uploads/a", "task_id": "t", "request_id": "r", "shape": "8,8,1", "dtype": "<f4"}
MESSAGE = {
    "items": [ITEM],
    "model": "digits",
    "deadline_s": 60,
    "sinks": ["jsonl"],
    "priority": 9,
    "top_k": 3,
    "prediction": False,
}
ACCEPTED = {
    "model": {"name": "digits", "version": "1", "digest": "sha256:00"},
    "items": [
        {"task_id": "t", "object_key": "uploads/a", "header": {"format": "png"}, "answer": {"top_k": 1, "prediction": True}}
    ],
}
VALUES = json_values(*ITEM, *MESSAGE, "digits", "name", "digest", "header", "format", "object_key", "s3://inference/../b")


@pytest.fixture
def reader(digits: ModelSpec) -> PlainMessageReader:
    settings = Settings()
    snapshot = ConfigSnapshot(settings, ModelRegistry({"digits": digits}, default="digits"), DesiredState())
    return PlainMessageReader(settings, [digits], snapshot=lambda: snapshot)


def changed_messages() -> st.SearchStrategy[Any]:
    items = st.lists(objects(ITEM, VALUES) | VALUES, max_size=4)
    return VALUES | objects(MESSAGE, VALUES) | items.map(lambda changed: {**MESSAGE, "items": changed})


@fuzz(250)
@given(kwargs=changed_messages(), message_id=st.just("m") | st.text(max_size=9), expires=st.none() | st.floats())
def test_plain_messages(reader: PlainMessageReader, kwargs: Any, message_id: str, expires: float | None) -> None:
    is_accepted(kwargs)
    try:
        found = reader.read(kwargs, message_id=message_id, queue="predict.digits", expires_in_s=expires)
    except InvalidRequest:
        return
    assert found
    for task in found:
        key = task.request.item.object_key
        assert not key.startswith("s3://")
        assert {"", ".", ".."}.isdisjoint(key.split("/")) or task.refusal is not None
        assert json.dumps(task.request.deadline_s)


@fuzz(200)
@given(objects(ACCEPTED, VALUES) | objects(ACCEPTED["items"][0], VALUES).map(lambda item: {**ACCEPTED, "items": [item]}) | VALUES)  # type: ignore[index]
def test_messages_of_the_api(kwargs: Any) -> None:
    """The consumer puts a message aside for these exceptions."""
    try:
        message = QueueMessage.from_kwargs(kwargs)
    except (AttributeError, KeyError, TypeError, ValueError):
        return
    assert all(isinstance(item.task_id, str) for item in message.items)


ENVELOPE = {
    "body": base64.b64encode(as_json([[], MESSAGE, {}])).decode(),
    "content-type": "application/json",
    "content-encoding": "utf-8",
    "headers": {"task": "tasks.predict", "id": "m", "items": 1},
    "properties": {"delivery_tag": "d", "delivery_info": {"exchange": "", "routing_key": "q"}, "body_encoding": "base64"},
}


@fuzz(200)
@given(
    objects(ENVELOPE, VALUES)
    | objects(ENVELOPE["headers"], VALUES).map(lambda changed: {**ENVELOPE, "headers": changed})
    | VALUES
)
def test_entries_of_a_list_of_redis(entry: Any) -> None:
    check_entry(as_json(entry))


@with_budget
def test_damaged_entries_of_a_list_of_redis() -> None:
    for data in mutations(as_json(ENVELOPE), 300 * BUDGET, chance_of("envelope")):
        check_entry(data)


class Decoding:
    """The part of kombu's channel that a message uses."""

    codecs = virtual.Channel.codecs
    decode_body = virtual.Channel.decode_body


def check_entry(data: bytes) -> None:
    """Read an entry as the transport does, and keep it as the consumer does with a message that cannot be read."""
    payload = _read(data, "d" if is_claimed(data) else "", "q")
    message = ClaimedMessage(payload, channel=Decoding())
    assert message.delivery_info
    assert json.dumps(_content(message), default=repr)


def is_claimed(data: bytes) -> bool:
    """Return whether claim.lua notes the entry as one that kombu wrote."""
    try:
        document = json.loads(data)
    except ValueError:
        return False
    properties = document.get("properties") if isinstance(document, dict) else None
    known = properties if isinstance(properties, dict) else {}
    return isinstance(known.get("delivery_tag"), str) and isinstance(known.get("delivery_info"), dict)
