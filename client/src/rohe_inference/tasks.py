"""Tasks and predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from rohe_inference.errors import ApiError, error_of_problem
from rohe_inference.results import Json, ModelReference, Result

TaskStatus = Literal["queued", "running", "succeeded", "failed", "canceled", "expired"]

#: Statuses that a task keeps.
TERMINAL_STATUSES = frozenset({"succeeded", "failed", "canceled", "expired"})


@dataclass(frozen=True)
class Prediction:
    """Answer to a synchronous request; `request_id` is the caller's own id, or the task's."""

    result: Result
    task_id: str
    request_id: str
    model: ModelReference
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, json: Json) -> Prediction:
        """Read the answer to `POST /inference`."""
        model = ModelReference.from_json(json["model"])
        return cls(Result.from_json(json["response"]), json["task_id"], json["request_id"], model, json)

    @property
    def class_id(self) -> int:
        """Index of the most likely class."""
        return self.result.class_id

    @property
    def label(self) -> str | None:
        """Label of the most likely class; None if the model has no labels."""
        return self.result.label

    @property
    def confidence_level(self) -> float:
        """Probability of the most likely class."""
        return self.result.confidence_level


@dataclass(frozen=True)
class QueuePosition:
    """Place of a task in its queue, 0 is next; `eta_s` is None if no task ended in the last seconds."""

    position: int
    eta_s: float | None


@dataclass(frozen=True)
class Delivery:
    """Delivery of a result to a sink; `reason` says why the sink refused it."""

    sink: str
    status: Literal["pending", "delivered", "refused", "discarded"]
    reason: str | None


@dataclass(frozen=True)
class Task:
    """Task as `GET /tasks/{task_id}` describes it.

    Attributes:
        result: of a succeeded task, else None.
        error: of a task that ended without a result, else None; it is ready to be raised.
        model: version that ran it; before, the version that was served when it was accepted.
        created_at, started_at, finished_at, deadline_at: with time zone UTC.
        webhook: receiver of its event and the attempts to reach it, as JSON; None if it has none.
        queue: while it waits.
        attempts: starts of the model.
        batch_size: images that the predictor got together.
        timings: milliseconds by step: `queue_ms`, `predict_ms`.
        image_stored: False while the object store has not taken the image.
        replay_of: the task whose image it runs again.
        owner: owner of the key that sent it; None if it was sent without a key.
        raw: the task as JSON.
    """

    task_id: str
    request_id: str
    status: TaskStatus
    model: ModelReference
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    deadline_at: datetime | None
    result: Result | None
    error: ApiError | None = field(compare=False)
    priority: int
    batch_id: str | None
    replay_of: str | None
    owner: str | None
    deliveries: Sequence[Delivery]
    webhook: Json | None = field(repr=False)
    queue: QueuePosition | None
    attempts: int
    batch_size: int | None
    timings: Mapping[str, float] = field(repr=False)
    image_stored: bool
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, json: Json) -> Task:
        """Read a task object."""
        queue = json["queue"]
        return cls(
            task_id=json["task_id"],
            request_id=json["request_id"],
            status=json["status"],
            model=ModelReference.from_json(json["model"]),
            created_at=_parse_time(json["created_at"]),
            started_at=parse_optional_time(json["started_at"]),
            finished_at=parse_optional_time(json["finished_at"]),
            deadline_at=parse_optional_time(json["deadline_at"]),
            result=read_result(json["result"]),
            error=read_error(json["error"], json["task_id"]),
            priority=json["priority"],
            batch_id=json["batch_id"],
            replay_of=json["replay_of"],
            owner=json.get("owner"),
            deliveries=tuple(Delivery(one["sink"], one["status"], one.get("reason")) for one in json["deliveries"]),
            webhook=json.get("webhook"),
            queue=QueuePosition(queue["position"], queue["eta_s"]) if queue else None,
            attempts=json["attempts"],
            batch_size=json["batch_size"],
            timings=json["timings"],
            image_stored=json.get("image_stored", True),
            raw=json,
        )

    @property
    def is_ended(self) -> bool:
        """Whether the status is one that the task keeps."""
        return self.status in TERMINAL_STATUSES

    def get_result(self) -> Result:
        """Return the result of a succeeded task.

        Raises:
            ApiError: the task's error, if it ended otherwise.
            ValueError: the task has not ended.
        """
        return take_result(self.result, self.error, f"task {self.task_id} is {self.status}: wait for it first")


def read_result(json: Json | None) -> Result | None:
    """Read a result, if there is one."""
    return None if json is None else Result.from_json(json)


def read_error(json: Json | None, task_id: str | None) -> ApiError | None:
    """Read the error of a task or batch item, if there is one."""
    if json is None:
        return None
    return error_of_problem({"task_id": task_id, **json})


def take_result(result: Result | None, error: ApiError | None, otherwise: str) -> Result:
    """Return the result. Raises the error if there is one, and ValueError with the text `otherwise` if there is neither."""
    if error is not None:
        raise error
    if result is None:
        raise ValueError(otherwise)
    return result


def _parse_time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))  # Python 3.10 reads no Z


def parse_optional_time(text: str | None) -> datetime | None:
    return None if text is None else _parse_time(text)
