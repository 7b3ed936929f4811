"""Values that travel between the processes arrive as they were."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.samples import MODEL, VECTOR, a_request, a_success, as_sent

from inference.domain import (
    ImageFormat,
    ImageHeader,
    ModelRef,
    Outcome,
    PredictionResult,
    QueueItem,
    QueueMessage,
    TaskStatus,
    decode_outcome,
    encode_outcome,
)
from inference.errors import DeadlineExceeded, InvalidImage
from inference.task_store.records import from_hash, item_field, record_fields

HEADERS = [
    ImageHeader(ImageFormat.PNG),
    ImageHeader(ImageFormat.NPY),
    ImageHeader(ImageFormat.RAW, (32, 32, 3), "<f4"),
    ImageHeader(ImageFormat.RAW, (28, 28), "|u1"),
]


@pytest.mark.parametrize(
    ("status", "is_terminal"),
    [
        (TaskStatus.QUEUED, False),
        (TaskStatus.RUNNING, False),
        (TaskStatus.SUCCEEDED, True),
        (TaskStatus.FAILED, True),
        (TaskStatus.CANCELED, True),
        (TaskStatus.EXPIRED, True),
    ],
)
def test_a_status_knows_whether_it_is_the_end(status: TaskStatus, is_terminal: bool) -> None:
    assert status.is_terminal is is_terminal


def test_every_status_is_spelled_as_clients_see_it() -> None:
    assert list(TaskStatus) == ["queued", "running", "succeeded", "failed", "canceled", "expired"]


@pytest.mark.parametrize("header", [*HEADERS, None])
def test_a_queue_message_survives_json(header: ImageHeader | None) -> None:
    message = QueueMessage(MODEL, (QueueItem("t1", "uploads/t1", header), QueueItem("t2", "uploads/größer", header)))
    assert QueueMessage.from_kwargs(as_sent(message)) == message


def test_people_read_keys_and_ids_of_a_queue_message() -> None:
    message = QueueMessage(MODEL, (QueueItem("t1", "uploads/t1", HEADERS[0]), QueueItem("t2", "uploads/t2", None)))
    items = [{"task_id": "t1", "object_key": "uploads/t1"}, {"task_id": "t2", "object_key": "uploads/t2"}]
    assert message.shown() == repr({"model": "tiny 1", "items": items})


_MODEL = {"name": "n", "version": "1", "digest": "d"}
_ITEM = {"task_id": "t", "object_key": "k", "header": None}


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"model": {}, "items": []},
        {"model": {"name": "n"}, "items": []},
        {"model": None},
        {"model": _MODEL | {"digest": None}, "items": [_ITEM]},
        {"model": _MODEL, "items": [_ITEM | {"task_id": []}]},
        {"model": _MODEL, "items": [_ITEM | {"object_key": 5}]},
    ],
)
def test_what_is_no_queue_message_is_told_apart(kwargs: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        QueueMessage.from_kwargs(kwargs)


class TestOutcome:
    @pytest.mark.parametrize(
        "vector",
        [
            VECTOR,
            np.array([1.0], dtype=np.float32),
            np.array([np.nan, np.inf, -np.inf, 0.0], dtype=np.float32),
            np.array([np.finfo(np.float32).tiny / 2, np.finfo(np.float32).max], dtype=np.float32),
            np.random.default_rng(7).random(1000, dtype=np.float32),
            np.frombuffer(b"\n" * 40, dtype="<f4"),  # bytes that are a line break
            np.arange(10, dtype=np.float32)[::2],  # not contiguous
            np.arange(4, dtype=">f4"),
        ],
    )
    def test_every_value_survives_bit_for_bit(self, vector: NDArray[np.float32]) -> None:
        outcome = Outcome(TaskStatus.SUCCEEDED, PredictionResult(0, None, vector))
        result = decode_outcome(encode_outcome(outcome)).result
        assert result is not None
        assert result.prediction.dtype == np.float32
        assert result.prediction.tobytes() == vector.astype("<f4").tobytes()

    @pytest.mark.parametrize("status", TaskStatus)
    def test_every_status_survives(self, status: TaskStatus) -> None:
        assert decode_outcome(encode_outcome(Outcome(status))) == Outcome(status)

    @pytest.mark.parametrize("label", [None, "", "tabby, tabby cat", "größer\nzweite Zeile", "猫"])
    def test_every_label_survives(self, label: str | None) -> None:
        outcome = Outcome(TaskStatus.SUCCEEDED, PredictionResult(1, label, VECTOR))
        result = decode_outcome(encode_outcome(outcome)).result
        assert result is not None
        assert (result.class_index, result.label) == (1, label)

    def test_everything_except_the_result_survives(self) -> None:
        outcome = a_success(
            result=None, timings={"queue_ms": 0.1, "predict_ms": 1 / 3}, worker="host:1:ab", predicted_at_ms=2**41
        )
        assert decode_outcome(encode_outcome(outcome)) == outcome

    def test_an_error_travels_as_data(self) -> None:
        error = InvalidImage("truncated\nat byte 7", field="image", expected="a whole PNG")
        outcome = Outcome.of_error(TaskStatus.FAILED, error, worker="w", timings={"fetch_ms": 1.0})
        back = decode_outcome(encode_outcome(outcome))
        assert back == outcome
        assert back.error == {
            "code": "invalid_image",
            "detail": "truncated\nat byte 7",
            "field": "image",
            "expected": "a whole PNG",
        }

    def test_a_result_is_a_view_that_cannot_be_written(self) -> None:
        result = decode_outcome(encode_outcome(a_success())).result
        assert result is not None
        with pytest.raises(ValueError, match="read-only"):
            result.prediction[0] = 1

    def test_a_thousand_values_are_four_thousand_bytes_and_a_line(self) -> None:
        vector = np.zeros(1000, dtype=np.float32)
        encoded = encode_outcome(Outcome(TaskStatus.SUCCEEDED, PredictionResult(0, None, vector)))
        head, _, values = encoded.partition(b"\n")
        assert len(values) == 4000
        assert json.loads(head)["status"] == "succeeded"


class TestResult:
    def test_the_highest_value_is_the_class(self) -> None:
        result = PredictionResult.from_vector(np.array([0.1, 0.7, 0.2], dtype=np.float32), ("ant", "bee", "cat"))
        assert (result.class_index, result.label, result.confidence_level) == (1, "bee", np.float32(0.7))

    def test_of_two_that_are_equal_the_first_is_the_class(self) -> None:
        assert PredictionResult.from_vector(np.array([0.5, 0.5], dtype=np.float32), ()).class_index == 0

    @pytest.mark.parametrize(("threshold", "confident"), [(None, None), (0.5, True), (0.7, True), (0.71, False)])
    def test_a_threshold_makes_it_confident_or_not(self, threshold: float | None, confident: bool | None) -> None:
        """0.7 is less than itself as float32; that is not what someone who writes 0.7 means."""
        result = PredictionResult.from_vector(np.array([0.3, 0.7], dtype=np.float32), (), threshold)
        assert result.confident is confident
        sent = decode_outcome(encode_outcome(Outcome(TaskStatus.SUCCEEDED, result))).result
        assert sent is not None
        assert sent.confident is confident

    @pytest.mark.parametrize("labels", [(), ("ant",)])
    def test_a_class_without_a_label_has_none(self, labels: tuple[str, ...]) -> None:
        assert PredictionResult.from_vector(np.array([0.1, 0.9], dtype=np.float32), labels).label is None


class TestRecord:
    def test_a_record_is_read_back_from_its_fields(self) -> None:
        request = a_request("t", request_id="größer", model=ModelRef("m", "2", "sha256:ab"), sinks=("a", "b"), store_ms=1.5)
        written = [*record_fields(request), "item", item_field(request)]
        fields = {name.encode(): _as_redis_gives(value) for name, value in zip(written[::2], written[1::2], strict=True)}
        fields |= {b"queue": b"q", b"request_id": request.request_id.encode(), b"status": b"succeeded", b"created_at": b"10"}
        fields |= {b"deadline_at": b"20", b"started_at": b"11", b"finished_at": b"12", b"attempts": b"2", b"deaths": b"1"}
        fields |= {b"outcome": encode_outcome(a_success(result=None)), b"delivery:a": b"pending", b"delivery:b": b"delivered"}
        record = from_hash("t", fields)
        assert (record.task_id, record.request_id, record.model, record.queue) == ("t", "größer", request.model, "q")
        assert (record.item, record.store_ms) == (request.item, 1.5)
        assert (record.status, record.attempts, record.deaths) == (TaskStatus.SUCCEEDED, 2, 1)
        assert (record.created_at_ms, record.started_at_ms, record.finished_at_ms, record.deadline_at_ms) == (10, 11, 12, 20)
        assert record.outcome == a_success(result=None)
        assert record.deliveries == {"a": "pending", "b": "delivered"}

    def test_an_expired_outcome_is_read(self) -> None:
        outcome = Outcome.of_error(TaskStatus.EXPIRED, DeadlineExceeded("late"))
        assert dataclasses.asdict(decode_outcome(encode_outcome(outcome))) == dataclasses.asdict(outcome)


def _as_redis_gives(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
