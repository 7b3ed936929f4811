"""Data that the processes exchange: the queue message, the task record and a task's outcome.

An outcome is one line of JSON, then the prediction vector as little-endian float32. So a result crosses Redis twice (record,
reply) without a conversion to text. Only `encode_outcome` and `decode_outcome` know this format.

Classes of which each image needs an instance, here and elsewhere, are not frozen: a frozen dataclass takes five times as long to
create, 3 % of the CPU time of a batch of small images. Treat the instances as read-only all the same.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from inference.errors import InferenceError, shown
from inference.webhook import Webhook, WebhookDelivery

#: Name of the Celery task that every queue message calls.
PREDICT_TASK = "tasks.predict"


class TaskStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"

    @property
    def is_terminal(self) -> bool:
        return self not in (TaskStatus.QUEUED, TaskStatus.RUNNING)


class ImageFormat(StrEnum):
    RAW = "raw"
    NPY = "npy"
    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"

    @property
    def label(self) -> str:
        """The format's usual name, for messages."""
        return {"raw": "raw", "npy": ".npy", "png": "PNG", "jpeg": "JPEG", "webp": "WebP"}[self.value]


@dataclass
class ImageHeader:
    """Format of an image as validation found it. The queue message has it as plain data, as orjson writes a dataclass."""

    format: ImageFormat
    #: (H, W, C) of a raw array; None for formats that contain their shape
    shape: tuple[int, ...] | None = None
    #: dtype of a raw array: numpy's canonical string with the byte order, e.g. ``<f4``
    dtype: str | None = None

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> ImageHeader:
        shape = data.get("shape")
        return ImageHeader(ImageFormat(data["format"]), None if shape is None else tuple(shape), data.get("dtype"))


@dataclass(frozen=True)
class ModelRef:
    """Version of a model. A task has two: the version that was served at its acceptance, and the version that ran it."""

    name: str
    version: str
    digest: str

    def to_dict(self) -> dict[str, str]:
        return {"name": self.name, "version": self.version, "digest": self.digest}


#: No model has as many classes, and orjson has no integers of more than 64 bits.
MAX_TOP_K = 2**31 - 1


@dataclass(frozen=True)
class AnswerOptions:
    """Parts of the result that a request asks for; orjson serializes it directly."""

    #: number of classes in `top`, at most `MAX_TOP_K`; None: as the model's description says
    top_k: int | None = None
    #: whether answers of HTTP have the vector `prediction`; documents of sinks always have it
    prediction: bool = True

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> AnswerOptions:
        top_k, prediction = data["top_k"], data["prediction"]
        if not (top_k is None or type(top_k) is int) or type(prediction) is not bool:
            raise TypeError(f"not options of an answer: {shown(data)}")
        return AnswerOptions(top_k, prediction)


@dataclass
class QueueItem:
    """One image in a queue message: a task id and the key of its bytes. orjson serializes it directly."""

    task_id: str
    object_key: str
    #: None if the bytes have not been validated yet: the worker that fetches them does that
    header: ImageHeader | None
    #: None: the defaults
    answer: AnswerOptions | None = None

    @property
    def top_k(self) -> int | None:
        return self.answer.top_k if self.answer else None

    @property
    def has_prediction(self) -> bool:
        """Whether answers of HTTP have the vector `prediction`."""
        return self.answer is None or self.answer.prediction

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> QueueItem:
        task_id, object_key = _texts(data, "task_id", "object_key")
        header, answer = data["header"], data.get("answer")
        return QueueItem(
            task_id,
            object_key,
            ImageHeader.from_dict(header) if header else None,
            AnswerOptions.from_dict(answer) if answer else None,
        )


@dataclass(frozen=True)
class QueueMessage:
    """Keyword arguments of the Celery task, serialized by orjson: a model and a list of items, of which each is a task."""

    model: ModelRef
    items: tuple[QueueItem, ...]

    def shown(self) -> str:
        """Return the text that Celery's events and Flower show."""
        items = [{"task_id": item.task_id, "object_key": item.object_key} for item in self.items]
        return repr({"model": f"{self.model.name} {self.model.version}", "items": items})

    @staticmethod
    def from_kwargs(kwargs: Mapping[str, Any]) -> QueueMessage:
        """Read a message. Raises AttributeError, KeyError, TypeError, ValueError if it is malformed."""
        items = tuple(QueueItem.from_dict(item) for item in kwargs["items"])
        if not items:
            raise ValueError("a predict message has at least one item")
        return QueueMessage(ModelRef(*_texts(kwargs["model"], "name", "version", "digest")), items)


def _texts(data: Mapping[str, Any], *names: str) -> list[str]:
    """Return the members `names`. Raises KeyError, TypeError: any value but a text would break code that uses it as id or key."""
    values = [data[name] for name in names]
    if not all(isinstance(value, str) for value in values):
        raise TypeError(f"{', '.join(names)} must be texts, not {shown(values)}")
    return values


@dataclass
class TaskSubmission:
    """A task as it is accepted: all data that is known before it runs."""

    task_id: str
    request_id: str
    model: ModelRef
    queue: str
    item: QueueItem
    #: seconds from acceptance until the task expires
    deadline_s: float
    sinks: tuple[str, ...] = ()
    #: 0 is usual, 9 is the highest
    priority: int = 0
    #: the bytes of an inline image, which the task store keeps until the task has ended; else empty
    image: bytes = b""
    #: reply channel of the API process that waits; empty if none waits
    reply_to: str = ""
    #: duration of the upload, milliseconds
    store_ms: float = 0.0
    idempotency_key: str = ""
    #: digest of the content that belongs to the idempotency key
    fingerprint: str = ""
    #: id of the batch request that it belongs to; empty for a single request
    batch_id: str = ""
    #: id of the task whose image it runs again; empty for a new image
    replay_of: str = ""
    webhook: Webhook | None = None
    #: the owner of the key that sent it; empty without keys
    owner: str = ""
    #: bytes of the image as it came, which count for the owner's quota
    image_bytes: int = 0
    #: trace context; see inference/tracing/context.py
    trace: str = ""


@dataclass(frozen=True)
class BatchRequest:
    """Tasks that are accepted together or not at all."""

    batch_id: str
    #: in the order of the request: a task, or the error of an item that was refused (`InferenceError.to_dict()`)
    entries: tuple[TaskSubmission | dict[str, Any], ...]
    idempotency_key: str = ""
    fingerprint: str = ""
    #: the owner of all its tasks; empty without keys
    owner: str = ""

    @property
    def tasks(self) -> list[TaskSubmission]:
        return [entry for entry in self.entries if isinstance(entry, TaskSubmission)]

    @property
    def record(self) -> BatchRecord:
        entries = (entry.task_id if isinstance(entry, TaskSubmission) else entry for entry in self.entries)
        return BatchRecord(self.batch_id, tuple(entries), self.owner)


@dataclass(frozen=True)
class BatchRecord:
    """A batch as it is stored."""

    batch_id: str
    #: in the order of the request: a task's id, or the error of an item that was refused
    entries: tuple[str | dict[str, Any], ...]
    #: empty for a batch that was accepted without a key
    owner: str = ""

    @property
    def task_ids(self) -> list[str]:
        return [entry for entry in self.entries if isinstance(entry, str)]


#: Index of a class, and its label if the model has labels.
NamedClass = tuple[int, str | None]


@dataclass
class PredictionResult:
    """The model's output for one image."""

    class_index: int
    label: str | None
    #: (classes,) float32
    prediction: NDArray[np.float32]
    #: the threshold of the class, for `confident`
    threshold: float | None = None
    #: the most likely classes, by falling value; None if they were not asked for
    top: Sequence[NamedClass] | None = None
    #: of a multi-label model, the labels whose value is at least their threshold, by falling value; None for other models
    labels: Sequence[NamedClass] | None = None
    #: return value of the `postprocess` of the model's code
    custom: Mapping[str, Any] | None = None

    @property
    def confidence_level(self) -> np.float32:
        """Value of the highest class, as the model returns it."""
        return np.float32(self.prediction[self.class_index])

    @property
    def confident(self) -> bool | None:
        """Whether the confidence level reaches the model's threshold; None if the model has no threshold."""
        return None if self.threshold is None else bool(self.confidence_level >= np.float32(self.threshold))

    @staticmethod
    def from_vector(vector: NDArray[np.float32], labels: tuple[str, ...], threshold: float | None = None) -> PredictionResult:
        best = int(vector.argmax())
        return PredictionResult(best, labels[best] if best < len(labels) else None, vector, threshold)

    def optional_members(self) -> dict[str, Any]:
        """Return the members `labels`, `top` and `custom` of answers and documents, if the result has them."""
        lists = {
            name: [{"class": index, "label": label, "confidence": self.prediction[index]} for index, label in classes]
            for name, classes in (("labels", self.labels), ("top", self.top))
            if classes is not None
        }
        return lists if self.custom is None else lists | {"custom": self.custom}


@dataclass
class Outcome:
    """End of a task: a result or an error, and the duration of each step."""

    status: TaskStatus
    result: PredictionResult | None = None
    #: `InferenceError.to_dict()`
    error: dict[str, Any] | None = None
    #: the model that produced the result; None if there is no result
    model: ModelRef | None = None
    batch_size: int = 0
    #: milliseconds by step: queue_ms, fetch_ms, decode_ms, batch_wait_ms, predict_ms
    timings: Mapping[str, float] = field(default_factory=dict)
    worker: str = ""
    #: time at which the prediction was ready, on the store's clock, ms since the epoch; 0 without a prediction
    predicted_at_ms: int = 0

    @staticmethod
    def of_error(status: TaskStatus, error: InferenceError, **details: Any) -> Outcome:
        return Outcome(status, error=error.to_dict(), **details)


def encode_outcome(outcome: Outcome) -> bytes:
    """Serialize an outcome: JSON header, newline, float32 values."""
    header: dict[str, Any] = {
        "status": outcome.status,
        "error": outcome.error,
        "model": astuple(outcome.model) if outcome.model else None,
        "batch_size": outcome.batch_size,
        "timings": dict(outcome.timings),
        "worker": outcome.worker,
        "predicted_at_ms": outcome.predicted_at_ms,
    }
    result = outcome.result
    if result is None:
        return orjson.dumps(header) + b"\n"
    header["result"] = [result.class_index, result.label, result.threshold]
    if result.top is not None or result.labels is not None or result.custom is not None:
        header["result"] += [result.top, result.labels, result.custom]
    return orjson.dumps(header) + b"\n" + np.ascontiguousarray(result.prediction, "<f4").tobytes()


def decode_outcome(data: bytes) -> Outcome:
    """Read the output of `encode_outcome`; the prediction is a read-only view of `data`."""
    head, _, values = data.partition(b"\n")
    header = orjson.loads(head)
    result = None
    if "result" in header:
        class_index, label, threshold, *lists = header["result"]
        result = PredictionResult(class_index, label, np.frombuffer(values, "<f4"), threshold, *lists)
    return Outcome(
        TaskStatus(header["status"]),
        result=result,
        error=header["error"],
        model=ModelRef(*header["model"]) if header["model"] else None,
        batch_size=header["batch_size"],
        timings=header["timings"],
        worker=header["worker"],
        predicted_at_ms=header["predicted_at_ms"],
    )


@dataclass(frozen=True)
class TaskRecord:
    """A task as it is stored. Times are on the store's clock, in ms since the epoch; 0 means not yet."""

    task_id: str
    request_id: str
    #: the version that was served when the task was accepted
    model: ModelRef
    queue: str
    item: QueueItem
    status: TaskStatus
    created_at_ms: int
    deadline_at_ms: int
    started_at_ms: int = 0
    finished_at_ms: int = 0
    #: starts of the model on this task
    attempts: int = 0
    #: attempts that ended with the death of the predictor or worker
    deaths: int = 0
    store_ms: float = 0.0
    priority: int = 0
    batch_id: str = ""
    replay_of: str = ""
    #: the sinks of the result
    sinks: tuple[str, ...] = ()
    outcome: Outcome | None = None
    #: by sink: pending, delivered, refused, or discarded (by an operator, after it was refused)
    deliveries: Mapping[str, str] = field(default_factory=dict)
    #: by sink that refused the result: the reason
    refusals: Mapping[str, str] = field(default_factory=dict)
    #: False until the object store has its image
    is_image_stored: bool = True
    webhook: Webhook | None = None
    #: None until the task has ended with one of the webhook's events
    webhook_delivery: WebhookDelivery | None = None
    owner: str = ""
    #: trace context; see inference/tracing/context.py
    trace: str = ""

    @staticmethod
    def of_request(request: TaskSubmission) -> TaskRecord:
        """Return the record of a task that is accepted now, with the values that its request contains."""
        now_ms = round(time.time() * 1000)
        return TaskRecord(
            task_id=request.task_id,
            request_id=request.request_id,
            model=request.model,
            queue=request.queue,
            item=request.item,
            status=TaskStatus.QUEUED,
            created_at_ms=now_ms,
            deadline_at_ms=now_ms + round(request.deadline_s * 1000),
            store_ms=request.store_ms,
            priority=request.priority,
            batch_id=request.batch_id,
            replay_of=request.replay_of,
            sinks=request.sinks,
            webhook=request.webhook,
            owner=request.owner,
            trace=request.trace,
        )

    @property
    def ran_on(self) -> ModelRef:
        """The version that produced the result; without a result, the version that was served when the task was accepted."""
        return (self.outcome and self.outcome.model) or self.model


@dataclass
class Completion:
    """End of a task, and its time. Times as in `TaskRecord`."""

    outcome: Outcome
    finished_at_ms: int


@dataclass
class CompletedTask(Completion):
    """End of a task, with the other values of its record that waiting clients and sinks get."""

    task_id: str
    request_id: str
    created_at_ms: int
    owner: str = ""
    #: trace context; see inference/tracing/context.py
    trace: str = ""
