"""Formats of the data that versions exchange through Redis, as tests/fixtures/formats/1.json has them.

A test that fails here says that a process of the version before would read other data than it expects. docs/upgrading.md says
which changes are safe, and what a change needs.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import redis
from store_worlds import commit_one, lease_one
from support.samples import MODEL, QUEUE, a_batch, a_request, a_success

from inference.broker import envelope
from inference.broker.redis import RedisBroker
from inference.domain import AnswerOptions, ImageFormat, ImageHeader, QueueItem, QueueMessage, TaskSubmission, decode_outcome
from inference.errors import InvalidImage
from inference.rollout.desired_state import DesiredState, NewFiles, Proposal, RolloutStore
from inference.rollout.worker_registry import LoadedModelInfo, WorkerInfo, WorkerPresence
from inference.task_store import TaskStore
from inference.task_store.outbox import Outbox
from inference.webhook import Webhook, WebhookEvent

#: Values that differ each time, by name; `""` stands for them in the file.
_MASKED = {"origin", "delivery_tag", "created_at", "deadline_at", "started_at", "finished_at", "seq"}
HEADER = ImageHeader(ImageFormat.RAW, (8, 8, 1), "<f4")
ITEM = QueueItem("task-1", "uploads/task-1", HEADER, AnswerOptions(3, False))
MESSAGE = QueueMessage(MODEL, (ITEM, QueueItem("task-2", "uploads/task-2", None)))
HOOK = Webhook("https://hooks.example/x", "hooks.example:443", (WebhookEvent.SUCCEEDED,))
WORKER = WorkerInfo("host:1:ab", (LoadedModelInfo("tiny", "1", "sha256:00", 0.5, 900.0, "litert", {"8": 1.5}),))
PROPOSAL = Proposal("change-1", "tiny", NewFiles("/models/a.keras"), serve=True)


def request() -> TaskSubmission:
    return a_request(
        "task-1",
        item=ITEM,
        request_id="photo-1",
        sinks=("jsonl", "kafka"),
        priority=3,
        batch_id="batch-1",
        replay_of="task-0",
        owner="lab",
        webhook=HOOK,
        store_ms=1.5,
        image=b"inline",
    )


class Stored:
    """The data that this version writes."""

    def __init__(self, client: redis.Redis, prefix: str, store: TaskStore) -> None:
        self.client = client
        self.prefix = prefix
        self.store = store
        self.outbox = Outbox(client, prefix, "jsonl", "relay-1")

    def message(self) -> Any:
        push = RedisBroker(self.client, shares_store=True).prepare(QUEUE, MESSAGE)
        assert push is not None
        document = orjson.loads(push.payload)
        return masked(document | {"body": orjson.loads(base64.b64decode(document["body"]))})

    def hash(self, *name: str) -> dict[str, str]:
        found: Any = self.client.hgetall(":".join((self.prefix, *name)))
        return masked({key.decode(): shown(value) for key, value in found.items()})

    def text(self, *name: str) -> Any:
        found: Any = self.client.get(":".join((self.prefix, *name)))
        return orjson.loads(found)

    def all(self) -> dict[str, Any]:
        """Return everything, by what it is."""
        self.outbox.open()
        self.store.accept(request(), enqueue=None, max_queue_depth=0)
        queued = self.hash("task", "task-1")
        lease_one(self.store, "w", "task-1")
        self.store.start("w", ["task-1"])
        commit_one(self.store, "w", "task-1", attempt=1)
        batch = a_batch(a_request("task-3"), InvalidImage("it is truncated", field="image").to_dict(), owner="lab")
        self.store.accept_batch(batch, enqueue=[], max_queue_depth=0)
        WorkerPresence(self.client, self.prefix).announce(WORKER)
        rollout = RolloutStore(self.client, self.prefix)
        rollout.propose(PROPOSAL)
        proposal = self.text("proposal")
        rollout.commit(PROPOSAL, MODEL)
        entries: Any = self.client.xrange(f"{self.prefix}:outbox:jsonl")
        return {
            "message": self.message(),
            "queued record": queued,
            "ended record": self.hash("task", "task-1"),
            "outbox entry": [{key.decode(): value.decode() for key, value in fields.items()} for _, fields in entries],
            "batch": self.text("batch", batch.batch_id),
            "heartbeat": self.text("worker", WORKER.worker),
            "proposal": proposal,
            "desired state": self.hash("desired"),
        }


def shown(value: bytes) -> str:
    """Return a value as text; an outcome's vector follows its line of JSON in base64."""
    head, newline, vector = value.partition(b"\n")
    return head.decode() + (newline.decode() + base64.b64encode(vector).decode() if newline else "")


def raw(value: str) -> bytes:
    head, newline, vector = value.partition("\n")
    return head.encode() + (newline.encode() + base64.b64decode(vector) if newline else b"")


def masked(document: Any) -> Any:
    if not isinstance(document, dict):
        return document
    return {name: "" if name in _MASKED else masked(value) for name, value in document.items()}


@pytest.fixture(scope="module")
def pinned(repository: Path) -> Mapping[str, Any]:
    found: dict[str, Any] = json.loads((repository / "tests/fixtures/formats/1.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture
def stored(redis_client: redis.Redis, key_prefix: str, store: TaskStore) -> Iterator[Stored]:
    yield Stored(redis_client, key_prefix, store)
    redis_client.delete(f"{key_prefix}:relays:jsonl")


def test_this_version_writes_the_pinned_formats(stored: Stored, pinned: Mapping[str, Any]) -> None:
    written = stored.all()
    assert written.keys() == pinned.keys()
    for kind, document in written.items():
        assert document == pinned[kind], f"the format of the {kind} has changed: see docs/upgrading.md"
    assert pinned["message"]["headers"][envelope.FORMAT_HEADER] == envelope.MESSAGE_FORMAT


@pytest.mark.parametrize("added", [{}, {"of_a_newer_version": "x"}], ids=["as it is", "with a member of a newer version"])
class TestReading:
    """The pinned formats are read, and members that a newer version adds are ignored."""

    def test_messages(self, pinned: Mapping[str, Any], added: dict[str, Any]) -> None:
        kwargs = pinned["message"]["body"][1]
        items = [{**item, **added} for item in kwargs["items"]]
        message = {**kwargs, "items": items, "model": {**kwargs["model"], **added}, **added}
        assert QueueMessage.from_kwargs(message) == MESSAGE

    def test_records(self, stored: Stored, pinned: Mapping[str, Any], added: dict[str, Any]) -> None:
        record = {name: raw("1700000000000" if name in _MASKED else value) for name, value in pinned["ended record"].items()}
        head, _, vector = record["outcome"].partition(b"\n")
        record["outcome"] = orjson.dumps({**orjson.loads(head), **added}) + b"\n" + vector
        stored.client.hset(f"{stored.prefix}:task:task-1", mapping={**record, **added})
        found = stored.store.get("task-1")
        assert (found.item, found.request_id, found.owner, found.webhook) == (ITEM, "photo-1", "lab", HOOK)
        assert (found.deliveries, found.attempts) == ({"jsonl": "pending", "kafka": "pending"}, 1)
        assert found.outcome is not None
        assert found.outcome.result is not None
        expected = a_success().result
        assert expected is not None
        np.testing.assert_array_equal(found.outcome.result.prediction, expected.prediction)
        assert decode_outcome(record["outcome"]).timings == {"queue_ms": 1.5}
        stored.client.delete(f"{stored.prefix}:task:task-1")

    def test_outbox_entries(self, stored: Stored, pinned: Mapping[str, Any], added: dict[str, Any]) -> None:
        stored.outbox.open()
        stored.client.xadd(f"{stored.prefix}:outbox:jsonl", {**pinned["outbox entry"][0], **added})
        (entry,) = stored.outbox.take(1, block_ms=1)
        assert (entry.task_id, entry.erasure) == ("task-1", None)

    def test_heartbeats(self, stored: Stored, pinned: Mapping[str, Any], added: dict[str, Any]) -> None:
        presence = WorkerPresence(stored.client, stored.prefix)
        presence.announce(WORKER)
        models = [{**model, **added} for model in pinned["heartbeat"]["models"]]
        stored.client.set(
            f"{stored.prefix}:worker:{WORKER.worker}", orjson.dumps({**pinned["heartbeat"], "models": models, **added})
        )
        assert presence.workers() == [WORKER]

    def test_changes_of_models(self, stored: Stored, pinned: Mapping[str, Any], added: dict[str, Any]) -> None:
        rollout = RolloutStore(stored.client, stored.prefix)
        proposal = {**pinned["proposal"], "files": {**pinned["proposal"]["files"], **added}, **added}
        stored.client.set(f"{stored.prefix}:proposal", orjson.dumps(proposal))
        changed = orjson.loads(pinned["desired state"]["model:tiny"])
        document = {"files": {**changed["files"], **added}, "model": {**changed["model"], **added}, **added}
        stored.client.hset(f"{stored.prefix}:desired", mapping={"served": "tiny", "model:tiny": orjson.dumps(document), **added})
        state, found = rollout.read_with_proposal()
        assert found == PROPOSAL
        assert isinstance(state, DesiredState)
        assert (state.served, state.models["tiny"].model) == ("tiny", MODEL)
        stored.client.delete(f"{stored.prefix}:proposal", f"{stored.prefix}:desired")


@pytest.mark.parametrize(
    ("headers", "newer"),
    [
        ({}, None),
        ({"format": 1}, None),
        ({"format": 2}, 2),
        ({"format": True}, None),
        ({"format": "2"}, None),
        ("odd", None),
        (None, None),
    ],
)
def test_messages_of_a_newer_format_are_recognized(headers: Any, newer: int | None) -> None:
    assert envelope.newer_format(headers) == newer


@pytest.mark.parametrize(
    ("headers", "times"),
    [({}, 0), ({"put_backs": 3}, 3), ({"put_backs": "3"}, 0), ({"put_backs": True}, 0), ({"put_backs": -9}, 0)],
)
def test_times_that_a_message_was_put_back(headers: dict[str, Any], times: int) -> None:
    assert envelope.put_backs(headers) == times
