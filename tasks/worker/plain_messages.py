"""Messages of plain Celery clients: their items are no accepted tasks, so the worker makes a task of each item.

kwargs ──read──▶ UnregisteredTask: a TaskSubmission, and the error if it cannot run ──Intake──▶ record, lease, run

    {"items": [{"object": "uploads/mine/cat.jpg", "request_id": "cat-1"}], "deadline_s": 60, "sinks": ["kafka"], "owner": "alice"}

A task's id is the item's `task_id`; without one, the message's id if the message has one item, else the message's id with ".0",
".1", … after it. It is the same each time the message is delivered. An error in one item fails only that item.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from inference.access import CELERY_OWNER, OWNER_PATTERN
from inference.array_metadata import parse_dtype, parse_shape
from inference.broker import HIGHEST_PRIORITY, USUAL_PRIORITY
from inference.domain import MAX_TOP_K, AnswerOptions, ImageFormat, ImageHeader, QueueItem, TaskSubmission
from inference.errors import DeadlineExceeded, InferenceError, InvalidMetadata, InvalidRequest, ModelNotFound, shown, shown_name
from inference.ids import TASK_ID_PATTERN, is_task_id, read_request_id
from inference.keys.key_ring import asks_for_keys
from inference.models.spec import ModelSpec
from inference.rollout.runtime_config import ConfigSnapshot
from inference.settings import Settings
from inference.storage.protocol import is_key, is_path
from tasks.pipeline.jobs import UnregisteredTask

#: Limit for one message: it is held as a whole until its last item has ended.
MAX_ITEMS = 1000

_EXAMPLE = '{"items": [{"object": "uploads/cat.jpg"}]}'


T = TypeVar("T", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Item(_Strict):
    #: key of the object, or s3://BUCKET/KEY
    object: str = Field(min_length=1)
    task_id: Annotated[str, Field(pattern=f"^{TASK_ID_PATTERN}$")] | None = None
    request_id: Any = None
    #: shape and dtype of raw bytes; files of the other formats contain them
    shape: Any = None
    dtype: Any = None


def _name(model: Any) -> Any:
    """Return the model's name, also from the form that the API's messages have: {"name": NAME}."""
    return model["name"] if isinstance(model, dict) and model.keys() == {"name"} else model


class _Message(_Strict):
    items: list[Any] = Field(min_length=1, max_length=MAX_ITEMS)
    model: Annotated[str | None, BeforeValidator(_name)] = None
    owner: Annotated[str, Field(pattern=f"^{OWNER_PATTERN}$")] | None = None
    deadline_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    sinks: list[str] | None = None
    priority: int = Field(default=USUAL_PRIORITY, ge=USUAL_PRIORITY, le=HIGHEST_PRIORITY)
    #: of the answers of HTTP, for each item; see `AnswerOptions`
    top_k: int | None = Field(default=None, gt=0, le=MAX_TOP_K)
    prediction: bool = True

    @property
    def answer(self) -> AnswerOptions | None:
        answer = AnswerOptions(self.top_k, self.prediction)
        return None if answer == AnswerOptions() else answer


def is_accepted(kwargs: Any) -> bool:
    """Return whether the API accepted the tasks of this message: it then names the digest of the model's files."""
    model = kwargs.get("model") if isinstance(kwargs, Mapping) else None
    return isinstance(model, Mapping) and "digest" in model


class PlainMessageReader:
    """Reads messages whose tasks have no record.

    Args:
        specs: models whose queues this worker consumes.
        snapshot: returns the configuration with the changes that commands made.
    """

    def __init__(self, settings: Settings, specs: Sequence[ModelSpec], *, snapshot: Callable[[], ConfigSnapshot]) -> None:
        self._settings = settings
        self._snapshot = snapshot
        self._specs = {spec.queue: spec for spec in specs}
        self._owner = CELERY_OWNER if asks_for_keys(settings) else ""

    def read(
        self, kwargs: Any, *, message_id: str, queue: str, expires_in_s: float | None = None, trace: str = ""
    ) -> tuple[UnregisteredTask, ...]:
        """Return a task for each item; for a message that cannot be read a single one, with its refusal.

        Args:
            queue: the queue of the message, which tells the model.
            expires_in_s: seconds until the sender no longer wants a result; 0 or less: that time has passed.
            trace: trace context of the tasks.

        Raises:
            InferenceError: no record of the message can be made; the error says why.
        """
        draft = dataclasses.replace(self._draft(message_id, queue), trace=trace)
        try:
            message = _parsed(_Message, kwargs, _EXAMPLE)
            draft = self._filled(draft, message, expires_in_s)
        except InferenceError as error:
            return (UnregisteredTask(draft, error),)
        ids = [message_id] if len(message.items) == 1 else [f"{message_id}.{number}" for number in range(len(message.items))]
        return tuple(
            self._unregistered_task(dataclasses.replace(draft, task_id=task_id), sent, f"items.{number}")
            for number, (task_id, sent) in enumerate(zip(ids, message.items, strict=True))
        )

    def _draft(self, message_id: str, queue: str) -> TaskSubmission:
        spec = self._specs.get(queue)
        if spec is None:
            raise ModelNotFound(f"{shown(queue)} is not the queue of a model of this worker", expected=" or ".join(self._specs))
        if not is_task_id(message_id):
            detail = f"the message's id, {shown(message_id)}, cannot be the id of a task"
            raise InvalidRequest(detail, expected="at most 128 letters, digits, . _ -")
        return TaskSubmission(
            task_id=message_id,
            request_id=message_id,
            model=self._snapshot().reference(spec),
            queue=queue,
            item=QueueItem(message_id, "", None),
            deadline_s=self._settings.deadlines.async_s,
            owner=self._owner,
        )

    def _filled(self, draft: TaskSubmission, message: _Message, expires_in_s: float | None) -> TaskSubmission:
        """Return the draft with the values that the message has for all its items. Raises InferenceError."""
        if message.model not in (None, draft.model.name):
            raise ModelNotFound(
                f"{draft.queue} is not the queue of {shown(message.model)}",
                field="model",
                expected=f"{draft.model.name}, or none",
            )
        deadlines = self._settings.deadlines
        wanted_s = message.deadline_s or deadlines.async_s
        if wanted_s > deadlines.max_s:
            raise InvalidMetadata(
                f"deadline_s is {wanted_s:g}, more than this service allows",
                field="deadline_s",
                expected=f"at most {deadlines.max_s:g}",
            )
        left_s = math.inf if expires_in_s is None else expires_in_s
        if left_s <= 0:
            raise DeadlineExceeded("the message expired before a worker received it")
        sinks = self._snapshot().sinks_for(message.sinks, field="sinks")
        item = dataclasses.replace(draft.item, answer=message.answer)
        return dataclasses.replace(
            draft,
            item=item,
            deadline_s=min(wanted_s, left_s),
            sinks=sinks,
            priority=message.priority,
            owner=message.owner or draft.owner,
        )

    def _unregistered_task(self, draft: TaskSubmission, sent: Any, field: str) -> UnregisteredTask:
        try:
            item = _parsed(_Item, sent, '{"object": "uploads/cat.jpg"}', field)
            task_id = item.task_id or draft.task_id
            request_id = read_request_id(item.request_id, field=f"{field}.request_id") or draft.request_id
            queue_item = QueueItem(task_id, self._key(item.object, field), _header(item), draft.item.answer)
        except InferenceError as error:
            return UnregisteredTask(dataclasses.replace(draft, item=QueueItem(draft.task_id, "", None)), error)
        return UnregisteredTask(dataclasses.replace(draft, task_id=task_id, request_id=request_id, item=queue_item))

    def _key(self, text: str, field: str) -> str:
        """Return the key in the bucket of the uploads, the only bucket that is read. Raises InvalidMetadata."""
        uploads = self._settings.uploads
        bucket, _, key = text.removeprefix("s3://").partition("/") if text.startswith("s3://") else (uploads.bucket, "", text)
        if bucket != uploads.bucket or not is_path(key) or not is_key(key):
            raise InvalidMetadata(
                f"{shown(text)} is not a key in the bucket of the uploads", field=f"{field}.object", expected="uploads/cat.jpg"
            )
        return key


def _header(item: _Item) -> ImageHeader | None:
    """Return the header of raw bytes; None for a file, which has its own. Raises InvalidMetadata."""
    if item.shape is None and item.dtype is None:
        return None
    return ImageHeader(ImageFormat.RAW, parse_shape(item.shape), parse_dtype(item.dtype).str)


def _parsed(kind: type[T], sent: Any, example: str, field: str = "") -> T:
    """Validate `sent` as a `kind`. Raises InvalidMetadata."""
    try:
        return kind.model_validate(sent)
    except ValidationError as error:
        problem = error.errors()[0]
        path = ".".join(filter(None, (field, *(shown_name(str(part)) for part in problem["loc"]))))
        reason = "not a mapping" if problem["type"] == "model_type" else problem["msg"]
        raise InvalidMetadata(f"{path or 'kwargs'}: {reason}", field=path or None, expected=example) from error
