"""Messages of plain Celery clients become tasks, or failures whose text says what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from pipeline_rig import Inbox, MakeRig, Rig, assert_failed, assert_succeeded, image_of, wait_until
from support.samples import MODEL, as_sent

from inference.domain import AnswerOptions, ImageFormat, ImageHeader, QueueMessage
from inference.errors import InferenceError
from inference.models.registry import ModelRegistry, reference
from inference.models.spec import ModelSpec
from inference.rollout.desired_state import DesiredState
from inference.rollout.runtime_config import ConfigSnapshot
from inference.settings import Settings
from tasks.pipeline.jobs import UnregisteredTask
from tasks.worker.plain_messages import MAX_ITEMS, PlainMessageReader, is_accepted

ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
KEY = "uploads/mine/cat.jpg"


@pytest.fixture
def plain_messages(digits: ModelSpec) -> PlainMessageReader:
    return reader_of(Settings(sinks=("jsonl", "kafka")), digits)


def reader_of(settings: Settings, digits: ModelSpec) -> PlainMessageReader:
    snapshot = ConfigSnapshot(settings, ModelRegistry({"digits": digits}, default="digits"), DesiredState())
    return PlainMessageReader(settings, [digits], snapshot=lambda: snapshot)


def read(plain_messages: PlainMessageReader, kwargs: Any, **options: Any) -> tuple[UnregisteredTask, ...]:
    return plain_messages.read(kwargs, **{"message_id": ID, "queue": "predict.digits"} | options)


def refusal(plain_messages: PlainMessageReader, kwargs: Any, **options: Any) -> InferenceError:
    """Return the error of a message that is refused as a whole; its record is under the message's id."""
    (unregistered_task,) = read(plain_messages, kwargs, **options)
    assert unregistered_task.request.task_id == ID
    assert unregistered_task.refusal is not None
    return unregistered_task.refusal


def test_an_object_is_all_it_takes(plain_messages: PlainMessageReader, digits: ModelSpec) -> None:
    (unregistered_task,) = read(plain_messages, {"items": [{"object": KEY}]})
    request = unregistered_task.request
    assert unregistered_task.refusal is None
    assert (request.task_id, request.request_id, request.queue, request.priority) == (ID, ID, "predict.digits", 0)
    assert (request.item.task_id, request.item.object_key, request.item.header) == (ID, KEY, None)
    assert (request.model, request.sinks, request.deadline_s) == (reference(digits), ("jsonl", "kafka"), 3600)


def test_everything_can_be_said(plain_messages: PlainMessageReader) -> None:
    item = {"object": KEY, "request_id": "cat-1", "task_id": "my-cat", "shape": "8,8,1", "dtype": ">f4"}
    kwargs = {
        "items": [item],
        "model": "digits",
        "deadline_s": 60,
        "sinks": ["kafka"],
        "priority": 9,
        "top_k": 3,
        "prediction": False,
    }
    (unregistered_task,) = read(plain_messages, kwargs)
    request = unregistered_task.request
    assert (request.task_id, request.request_id, request.priority) == ("my-cat", "cat-1", 9)
    assert (request.deadline_s, request.sinks) == (60, ("kafka",))
    assert request.item.header == ImageHeader(ImageFormat.RAW, (8, 8, 1), ">f4")
    assert request.item.answer == AnswerOptions(3, prediction=False)


@pytest.mark.parametrize(
    ("security", "kwargs", "owner"),
    [
        ({}, {}, ""),
        ({"require_keys": True}, {}, "celery"),
        ({}, {"owner": "alice@example.org"}, "alice@example.org"),
        ({"require_keys": True}, {"owner": "alice"}, "alice"),
    ],
)
def test_a_task_belongs_to_the_owner_that_its_message_names(
    digits: ModelSpec, security: dict[str, Any], kwargs: dict[str, Any], owner: str
) -> None:
    reader = reader_of(Settings(security=security), digits)
    items = [{"object": KEY}, {"object": KEY}]
    assert [task.request.owner for task in read(reader, {"items": items} | kwargs)] == [owner, owner]


@pytest.mark.parametrize("owner", ["", "a:b", "a b", "../x", "a" * 65, 17, ["alice"], "é"])
def test_a_name_that_no_owner_can_have_is_refused(digits: ModelSpec, owner: Any) -> None:
    reader = reader_of(Settings(security={"require_keys": True}), digits)
    (task,) = read(reader, {"items": [{"object": KEY}], "owner": owner})
    assert task.refusal is not None
    assert (task.refusal.code, task.refusal.field, task.request.owner) == ("invalid_metadata", "owner", "celery")


def test_ids_of_several_items_are_the_same_each_time(plain_messages: PlainMessageReader) -> None:
    kwargs = {"items": [{"object": KEY}, {"object": KEY, "task_id": "mine"}, {"object": KEY}]}
    ids = [unregistered_task.request.task_id for unregistered_task in read(plain_messages, kwargs)]
    assert ids == [f"{ID}.0", "mine", f"{ID}.2"]
    assert [unregistered_task.request.task_id for unregistered_task in read(plain_messages, kwargs)] == ids
    assert {unregistered_task.request.request_id for unregistered_task in read(plain_messages, kwargs)} == {ID}


def test_a_bad_item_is_refused_alone(plain_messages: PlainMessageReader) -> None:
    first, second = read(plain_messages, {"items": [{"object": KEY}, {"obj": KEY}]})
    assert first.refusal is None
    assert second.request.task_id == second.request.item.task_id == f"{ID}.1"
    assert second.refusal is not None
    assert second.refusal.field == "items.1.object"


@pytest.mark.parametrize(
    "key", ["/etc/passwd", "../secrets", "uploads/../../x", "uploads//x", ".", "s3://other-bucket/cat.jpg", "s3://inference/"]
)
def test_only_keys_of_the_uploads_are_read(plain_messages: PlainMessageReader, key: str) -> None:
    (unregistered_task,) = read(plain_messages, {"items": [{"object": key}]})
    assert unregistered_task.refusal is not None
    assert (unregistered_task.refusal.code, unregistered_task.refusal.field) == ("invalid_metadata", "items.0.object")
    assert unregistered_task.request.item.object_key == ""


def test_an_object_may_be_named_with_its_bucket(plain_messages: PlainMessageReader) -> None:
    (unregistered_task,) = read(plain_messages, {"items": [{"object": f"s3://inference/{KEY}"}]})
    assert (unregistered_task.refusal, unregistered_task.request.item.object_key) == (None, KEY)


@pytest.mark.parametrize(
    ("kwargs", "code", "field"),
    [
        (None, "invalid_metadata", None),
        ([], "invalid_metadata", None),
        ({}, "invalid_metadata", "items"),
        ({"items": []}, "invalid_metadata", "items"),
        ({"items": [{"object": KEY}] * (MAX_ITEMS + 1)}, "invalid_metadata", "items"),
        ({"items": [{"object": KEY}], "modell": "digits"}, "invalid_metadata", "modell"),
        ({"items": [{"object": KEY}], "model": "others"}, "model_not_found", "model"),
        ({"items": [{"object": KEY}], "model": {"version": "1"}}, "invalid_metadata", "model"),
        ({"items": [{"object": KEY}], "deadline_s": 0}, "invalid_metadata", "deadline_s"),
        ({"items": [{"object": KEY}], "deadline_s": "60"}, "invalid_metadata", "deadline_s"),
        ({"items": [{"object": KEY}], "deadline_s": 86_401}, "invalid_metadata", "deadline_s"),
        ({"items": [{"object": KEY}], "sinks": ["mongodb"]}, "invalid_metadata", "sinks"),
        ({"items": [{"object": KEY}], "priority": 10}, "invalid_metadata", "priority"),
        ({"items": [{"object": KEY}], "top_k": 0}, "invalid_metadata", "top_k"),
        ({"items": [{"object": KEY}], "top_k": 2**64}, "invalid_metadata", "top_k"),
    ],
)
def test_what_is_wrong_with_a_message_is_said(
    plain_messages: PlainMessageReader, kwargs: Any, code: str, field: str | None
) -> None:
    error = refusal(plain_messages, kwargs)
    assert (error.code, error.field) == (code, field)


@pytest.mark.parametrize(
    "item", [5, None, [], {}, {"object": ""}, {"object": KEY, "shape": [8, 8]}, {"object": KEY, "task_id": "a/b"}]
)
def test_what_is_wrong_with_an_item_is_said(plain_messages: PlainMessageReader, item: Any) -> None:
    assert refusal(plain_messages, {"items": [item]}).code == "invalid_metadata"


@pytest.mark.parametrize("request_id", ["x" * 256, "ü/:*\n{}", 42])
def test_request_ids_are_as_long_as_over_http(plain_messages: PlainMessageReader, request_id: Any) -> None:
    (unregistered_task,) = read(plain_messages, {"items": [{"object": KEY, "request_id": request_id}]})
    assert (unregistered_task.refusal, unregistered_task.request.request_id) == (None, str(request_id))


@pytest.mark.parametrize("request_id", ["x" * 257, 1.5, [], True, "\ud800", "a\udfffb"])
def test_what_is_no_request_id_is_none_over_http_either(plain_messages: PlainMessageReader, request_id: Any) -> None:
    error = refusal(plain_messages, {"items": [{"object": KEY, "request_id": request_id}]})
    assert (error.code, error.field) == ("invalid_metadata", "items.0.request_id")


@pytest.mark.parametrize("key", ["a\0b", "a\nb", "a/\u202eb", "x" * 1025, "ü" * 513])
def test_keys_that_no_object_has(plain_messages: PlainMessageReader, key: str) -> None:
    error = refusal(plain_messages, {"items": [{"object": key}]})
    assert (error.code, error.field) == ("invalid_metadata", "items.0.object")
    assert len(error.detail) < 200


@pytest.mark.parametrize("value", ["x" * 400_000, "\x1b\u202e" * 200, ["x"] * 10_000, {"\x1b" * 9000: 1}, 10**5000], ids=range(5))
def test_no_refusal_repeats_what_was_sent_without_bound(plain_messages: PlainMessageReader, value: Any) -> None:
    item_names = ("object", "task_id", "request_id", "shape", "dtype", "x" * 9000, "\x1b")
    message_names = ("items", "model", "deadline_s", "sinks", "priority", "x" * 9000, "\x1b")
    messages = [
        *({"items": [{"object": KEY, "dtype": "u1", "shape": "1,1"} | {name: value}]} for name in item_names),
        *({"items": [{"object": KEY}]} | {name: value} for name in message_names),
        {"items": [value]},
        value,
    ]
    for kwargs in messages:
        error = refusal(plain_messages, kwargs)
        assert len(str(error)) < 1000, error
        assert len(error.field or "") < 1000
        assert "\x1b" not in str(error) + str(error.field)
    with pytest.raises(InferenceError) as caught:
        read(plain_messages, {}, message_id=str(value)[:400_000] if not isinstance(value, int) else "a/b")
    assert len(str(caught.value)) < 300


def test_celerys_expiry_is_a_deadline(plain_messages: PlainMessageReader) -> None:
    kwargs = {"items": [{"object": KEY}]}
    (unregistered_task,) = read(plain_messages, kwargs, expires_in_s=12.5)
    assert (unregistered_task.refusal, unregistered_task.request.deadline_s) == (None, 12.5)
    assert refusal(plain_messages, kwargs, expires_in_s=-1).code == "deadline_exceeded"


@pytest.mark.parametrize("options", [{"queue": "predict.other"}, {"message_id": "a/b"}, {"message_id": ".."}, {"message_id": ""}])
def test_what_can_have_no_record_is_an_error(plain_messages: PlainMessageReader, options: dict[str, str]) -> None:
    with pytest.raises(InferenceError):
        read(plain_messages, {"items": [{"object": KEY}]}, **options)


def test_a_task_that_the_api_accepted_is_no_unregistered_task() -> None:
    assert is_accepted(as_sent(QueueMessage(MODEL, ())))
    for kwargs in (None, [], {}, {"model": None}, {"model": "digits"}, {"model": {"name": "digits"}}):
        assert not is_accepted(kwargs)


class TestThroughThePipeline:
    def deliver(self, rig: Rig, plain_messages: PlainMessageReader, kwargs: Any) -> Inbox:
        unregistered = read(plain_messages, kwargs)
        message = QueueMessage(
            unregistered[0].request.model, tuple(unregistered_task.request.item for unregistered_task in unregistered)
        )
        inbox = Inbox(message, {unregistered_task.request.task_id: unregistered_task for unregistered_task in unregistered})
        rig.pipeline.submit(inbox.delivery)
        return inbox

    def test_it_gets_a_record_and_runs(self, rig: Rig, plain_messages: PlainMessageReader) -> None:
        rig.objects.put(KEY, image_of(4))
        inbox = self.deliver(rig, plain_messages, {"items": [{"object": KEY, "shape": [8, 8, 1], "dtype": "<f4"}], "sinks": []})
        rig.await_done([inbox])
        assert inbox.ends == {ID: "committed"}
        assert_succeeded(rig.store.get(ID), 4)

    def test_the_format_is_seen_in_the_bytes(self, rig: Rig, plain_messages: PlainMessageReader, repository: Any) -> None:
        rig.objects.put(KEY, (repository / "samples/digit_7.png").read_bytes())
        rig.await_done([self.deliver(rig, plain_messages, {"items": [{"object": KEY}]})])
        assert rig.store.get(ID).status == "succeeded"

    def test_the_id_of_another_owners_task_fails_and_leaves_that_task_as_it_is(
        self, rig: Rig, plain_messages: PlainMessageReader
    ) -> None:
        rig.objects.put(KEY, image_of(4))
        rig.await_done([self.deliver(rig, plain_messages, {"items": [{"object": KEY, "shape": [8, 8, 1], "dtype": "<f4"}]})])
        before = rig.store.get(ID)
        item = {"object": KEY, "shape": [8, 8, 1], "dtype": "<f4"}
        inbox = self.deliver(rig, plain_messages, {"items": [item | {"task_id": ID}, item | {"task_id": "new"}], "owner": "bob"})
        rig.await_done([inbox])
        assert inbox.ends == {ID: "dropped", "new": "committed"}
        outcome = inbox.dones[0][ID].outcome
        assert outcome is not None
        assert outcome.error is not None
        assert (outcome.status, outcome.error["code"], outcome.result) == ("failed", "idempotency_conflict", None)
        after = rig.store.get(ID)
        assert (after.owner, after.attempts, after.finished_at_ms) == (before.owner, 1, before.finished_at_ms)
        assert rig.store.get("new").owner == "bob"
        alone = self.deliver(rig, plain_messages, {"items": [item], "owner": "bob"})
        rig.await_done([alone])
        assert alone.ends == {ID: "dropped"}

    def test_bytes_of_no_format_fail(self, rig: Rig, plain_messages: PlainMessageReader) -> None:
        rig.objects.put(KEY, image_of(4))
        rig.await_done([self.deliver(rig, plain_messages, {"items": [{"object": KEY}]})])
        assert_failed(rig.store.get(ID), "invalid_metadata")

    def test_an_object_that_is_not_there_fails(self, rig: Rig, plain_messages: PlainMessageReader) -> None:
        rig.await_done([self.deliver(rig, plain_messages, {"items": [{"object": KEY}]})])
        assert_failed(rig.store.get(ID), "object_not_found")

    def test_a_refused_one_has_a_record_that_says_why(self, rig: Rig, plain_messages: PlainMessageReader) -> None:
        inbox = self.deliver(rig, plain_messages, {"items": []})
        rig.await_done([inbox])
        assert inbox.ends == {ID: "committed"}
        assert_failed(rig.store.get(ID), "invalid_metadata")

    def test_a_message_that_comes_again_does_not_start_again(self, rig: Rig, plain_messages: PlainMessageReader) -> None:
        rig.objects.put(KEY, image_of(4))
        kwargs = {"items": [{"object": KEY, "shape": [8, 8, 1], "dtype": "<f4"}]}
        rig.await_done([self.deliver(rig, plain_messages, kwargs)])
        again = self.deliver(rig, plain_messages, kwargs)
        rig.await_done([again])
        assert again.ends == {ID: "dropped"}
        assert rig.predictor.batches == [[4]]
        assert rig.store.get(ID).attempts == 1

    def test_records_wait_for_a_store_that_is_down(self, make_rig: MakeRig, plain_messages: PlainMessageReader) -> None:
        rig = make_rig().start()
        rig.objects.put(KEY, image_of(4))
        rig.store.take_down("accept")
        inbox = self.deliver(rig, plain_messages, {"items": [{"object": KEY, "shape": [8, 8, 1], "dtype": "<f4"}]})
        wait_until(lambda: rig.store.refused["accept"], "a refused record")
        rig.store.bring_up()
        rig.await_done([inbox])
        assert_succeeded(rig.store.get(ID), 4)
