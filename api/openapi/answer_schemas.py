"""Schemas of the documents in answers.

They describe the output of `api/views/`: the tests' client compares every answer with them. A member that may be missing is
`NotRequired`. Clients have to ignore members that they do not know, so none of the schemas excludes further members.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from inference.errors import ERRORS_BY_CODE, ConfigurationError
from inference.webhook import WebhookEvent

#: Codes of all problems that a client can get, in alphabetical order.
CODES = sorted(code for code, kind in ERRORS_BY_CODE.items() if kind is not ConfigurationError)

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Milliseconds = Annotated[float, Field(ge=0, description="milliseconds")]
Count = Annotated[int, Field(ge=0)]
TaskStatus = Literal["queued", "running", "succeeded", "failed", "canceled", "expired"]


class Problem(TypedDict):
    """Problem details (RFC 9457) with a stable `code`."""

    type: Annotated[str, Field(description="urn:problem-type:inference:CODE")]
    title: str
    status: Annotated[int, Field(description="HTTP status")]
    detail: Annotated[str, Field(description="fault of this request")]
    code: Annotated[str, Field(json_schema_extra={"enum": CODES})]
    field: NotRequired[Annotated[str, Field(description="place of the problem in the request, e.g. metadata.shape")]]
    expected: NotRequired[Annotated[str, Field(description="right value or form of the field")]]
    retry_after_s: NotRequired[Annotated[float, Field(description="as Retry-After, not rounded up")]]
    task_id: NotRequired[str]
    batch_id: NotRequired[str]
    workers: NotRequired[Annotated[dict[str, str], Field(description="of a command that failed: by worker, its result")]]


class ModelReference(TypedDict):
    """Version of a model."""

    name: str
    version: str
    digest: str


ClassConfidence = TypedDict(
    "ClassConfidence",
    {"class": Annotated[int, Field(ge=0, description="index of the class")], "label": str | None, "confidence": float},
)

Result = TypedDict(
    "Result",
    {
        "class": Annotated[int, Field(ge=0, description="index of the most likely class")],
        "label": Annotated[str | None, Field(description="its label; null if the model has none")],
        "confidence_level": Annotated[float, Field(description="its value in the vector")],
        "confident": NotRequired[Annotated[bool, Field(description="whether that reaches the model's threshold")]],
        "labels": NotRequired[
            Annotated[list[ClassConfidence], Field(description="of a multi-label model: all labels that reach their threshold")]
        ],
        "top": NotRequired[
            Annotated[list[ClassConfidence], Field(description="with top_k: the most likely classes, first first")]
        ],
        "custom": NotRequired[Annotated[dict[str, Any], Field(description="result of `postprocess` of the model's own code")]],
        "prediction": NotRequired[Annotated[list[float], Field(description="the whole vector")]],
    },
)


class Prediction(TypedDict):
    """Result of a synchronous request."""

    response: Result
    task_id: str
    request_id: Annotated[str, Field(description="the client's own id; the task's id if the client sent none")]
    model: ModelReference


class QueuePosition(TypedDict):
    """Place of a waiting task."""

    position: Annotated[int, Field(ge=0)]
    eta_s: Annotated[float | None, Field(description="seconds, at the rate of the last seconds; null if no task ended in them")]


class Delivery(TypedDict):
    """State of a result on its way to a sink."""

    sink: str
    status: Literal["pending", "delivered", "refused", "discarded"]
    reason: NotRequired[Annotated[str, Field(description="why the sink refused it")]]


class WebhookAttempt(TypedDict):
    """Request to the receiver of a webhook."""

    at: Time
    duration_ms: Milliseconds
    status: Annotated[int | None, Field(description="HTTP status of the answer; null without one")]
    error: Annotated[str | None, Field(description="why there was no answer")]


class WebhookDelivery(TypedDict):
    """Webhook of a task, and the delivery of its event."""

    url: str
    events: list[WebhookEvent]
    status: Annotated[
        Literal["pending", "delivered", "given_up"] | None, Field(description="null: the task has not ended with such an event")
    ]
    attempts: Count
    last_attempts: Annotated[list[WebhookAttempt], Field(description="the last ten, newest last")]
    next_attempt_at: Time | None


class Timings(TypedDict):
    """Duration of each step."""

    store_ms: NotRequired[Milliseconds]
    queue_ms: NotRequired[Milliseconds]
    fetch_ms: NotRequired[Milliseconds]
    decode_ms: NotRequired[Milliseconds]
    batch_wait_ms: NotRequired[Milliseconds]
    predict_ms: NotRequired[Milliseconds]
    commit_ms: NotRequired[Milliseconds]


class Urls(TypedDict):
    """Paths, with the prefix that a proxy puts before them."""

    self: str
    cancel: Annotated[str, Field(description="for DELETE")]


class TaskFacts(TypedDict):
    """Members of a task that do not change after its end."""

    task_id: str
    request_id: str
    owner: NotRequired[Annotated[str, Field(description="the owner of the key that sent it; missing without one")]]
    status: TaskStatus
    model: ModelReference
    created_at: Time
    started_at: Time | None
    finished_at: Time | None
    deadline_at: Time | None
    result: Result | None
    error: Problem | None
    priority: Annotated[int, Field(ge=0, le=9)]
    batch_id: str | None
    attempts: Annotated[int, Field(ge=0, description="starts of the model on this task")]
    timings: Timings
    batch_size: Annotated[int | None, Field(description="images that the predictor got together")]
    replay_of: Annotated[str | None, Field(description="the task whose image it runs again")]


class Task(TaskFacts):
    """One image on its way through the service."""

    deliveries: list[Delivery]
    webhook: NotRequired[Annotated[WebhookDelivery, Field(description="of a task with a webhook")]]
    queue: QueuePosition | None
    image_stored: NotRequired[Annotated[bool, Field(description="false while the object store does not have the image")]]
    urls: Urls


class TaskPage(TypedDict):
    """Page of a list of tasks, newest first."""

    tasks: list[Task]
    next_cursor: NotRequired[Annotated[str, Field(description="missing on the last page, and only there")]]
    next: NotRequired[Annotated[str, Field(description="path of the next page")]]


class BatchItem(TypedDict):
    """One image of a batch request."""

    status: Annotated[
        Literal[TaskStatus, "refused", "gone"],
        Field(description="refused: it has no task; gone: its task is no longer known"),
    ]
    task_id: str | None
    request_id: str | None
    model: ModelReference | None
    result: Result | None
    error: Problem | None


class BatchCounts(TypedDict):
    """Number of items by status."""

    queued: Count
    running: Count
    succeeded: Count
    failed: Count
    canceled: Count
    expired: Count
    refused: Count
    gone: NotRequired[Count]


class Batch(TypedDict):
    """Images of one request, in its order."""

    batch_id: str
    status: Literal["running", "ended"]
    counts: BatchCounts
    items: list[BatchItem]
    urls: Urls


class WorkerReport(TypedDict):
    """Worker that has loaded a model."""

    worker: str
    status: Literal["ready"]
    model: ModelReference
    load_s: Annotated[float, Field(ge=0)]


class CommandResult(TypedDict):
    """State after a command."""

    model: NotRequired[Annotated[ModelReference, Field(description="the new version, if the command loaded files")]]
    workers: list[WorkerReport]
    served_model: str
    ensemble_mode: bool
    sinks: list[str]


class CommandAnswer(TypedDict):
    """Answer to a command."""

    response: CommandResult


class _Identity(TypedDict):
    pipeline_id: str
    served_model: Annotated[str, Field(description="the model of requests that name none")]
    model: ModelReference
    input_shape: Annotated[list[int], Field(description="height, width, channels")]
    ensemble_mode: Annotated[bool, Field(description="whether results go to Kafka for an ensemble")]
    sinks: list[str]


class Description(_Identity):
    """Description of the service."""

    response: Annotated[str, Field(description="the same as a sentence")]


class Overview(TypedDict):
    """Description of the service: its paths; while it has no keys, in addition models and configuration."""

    service: str
    pipeline_id: NotRequired[str]
    served_model: NotRequired[str]
    model: NotRequired[ModelReference]
    input_shape: NotRequired[list[int]]
    ensemble_mode: NotRequired[bool]
    sinks: NotRequired[list[str]]
    models: NotRequired[list[str]]
    paths: Annotated[dict[str, str], Field(description="by method and path, its purpose")]


class Liveness(TypedDict):
    """Answer of a process that runs."""

    status: Literal["live"]


class Readiness(TypedDict):
    """Result of the checks on which serving a request depends."""

    status: Literal["ready", "not ready"]
    checks: Annotated[dict[str, str], Field(description="by check, ok or the problem")]


class _ModelUrls(TypedDict):
    self: str


class Model(ModelReference):
    """Configured model, with the version that is served."""

    default: Annotated[bool, Field(description="whether requests without a model's name get it")]
    description: str
    task: Literal["single_label", "multi_label"]
    input: Annotated[dict[str, Any], Field(description="as in its model.yaml: shape, dtype, raw and the other keys")]
    label_count: Annotated[int, Field(ge=0)]
    runtime: Annotated[str | None, Field(description="library that runs it; null if no worker has it loaded")]
    images_per_s: Annotated[float | None, Field(description="sum of the rates that the workers measured")]
    warm_workers: Annotated[int, Field(ge=0, description="workers that have it loaded")]
    urls: _ModelUrls


class WarmWorker(TypedDict):
    """Worker that has a model loaded."""

    worker: str
    version: str
    digest: str
    runtime: str | None
    predict_ms: Annotated[float, Field(ge=0, description="one image alone, milliseconds")]
    images_per_s: Annotated[float, Field(ge=0)]


class LoadingWorker(TypedDict):
    """Worker that loads other files of a model."""

    worker: str
    status: Literal["loading", "ready", "failed"]
    load_s: Annotated[float | None, Field(ge=0, description="null while it loads")]


class ModelChange(TypedDict):
    """Command that loads other files of a model, and has not ended."""

    workers: list[LoadingWorker]


class ModelDetails(Model):
    """Configured model with its labels and workers."""

    license: str
    source: str
    labels: list[str]
    threshold: float | list[float] | dict[str, float] | None
    top_k: int | None
    workers: list[WarmWorker]
    change: ModelChange | None


class ModelList(TypedDict):
    """All configured models."""

    models: list[Model]


class ServiceStatus(TypedDict):
    """Output of `server.py status --json`."""

    stores: Annotated[dict[str, str], Field(description="by store, ok or the problem")]
    models: list[dict[str, Any]]
    sinks: list[dict[str, Any]]
    workers: list[dict[str, Any]]
    webhooks: dict[str, Any] | None
    dead_letters: int | None
    rejected_messages: int | None
    unstored_images: int | None
    problems: list[str]
    warnings: list[str]


class OpenApiDocument(TypedDict):
    """OpenAPI 3.1."""

    openapi: str
    info: dict[str, Any]
    servers: list[dict[str, Any]]
    tags: list[dict[str, Any]]
    paths: dict[str, Any]
    components: dict[str, Any]


ANSWER_SCHEMAS: tuple[type, ...] = (
    Problem,
    Prediction,
    Task,
    TaskPage,
    Batch,
    CommandAnswer,
    Description,
    Overview,
    Liveness,
    Readiness,
    ModelList,
    ModelDetails,
    ServiceStatus,
    OpenApiDocument,
)
