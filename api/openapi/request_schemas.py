"""Schemas of request bodies, and of query parameters that a form may have as fields too.

Fields of a form or a query are text, so lists have other forms there than in JSON. Members of a JSON object that are not named
here are the client's own; other fields of a form or a query are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from inference.broker import HIGHEST_PRIORITY, USUAL_PRIORITY
from inference.ids import MAX_REQUEST_ID_LENGTH
from inference.webhook import WebhookEvent

_closed = with_config(ConfigDict(extra="forbid"))

File = Annotated[str, Field(json_schema_extra={"format": "binary", "contentMediaType": "application/octet-stream"})]

RequestId = Annotated[str, Field(max_length=MAX_REQUEST_ID_LENGTH, description="your own id; many tasks may share one")]
Model = Annotated[str, Field(description="a model's name; default: the served model")]
Deadline = Annotated[float, Field(gt=0, description="seconds until the task expires")]
Mode = Annotated[Literal["sync", "async"], Field(description="async is `Prefer: respond-async`")]
Priority = Annotated[int, Field(ge=USUAL_PRIORITY, le=HIGHEST_PRIORITY, description="0 is usual, 9 goes first")]
Dtype = Annotated[str, Field(description="of array bytes: numpy's name, with byte order: uint8, >f4")]
TopK = Annotated[int, Field(ge=1, description="the result has the k most likely classes in `top`")]
WithPrediction = Annotated[bool, Field(description="false: the result is without the vector `prediction`")]
_SHAPE = "of array bytes: height, width, channels"
_WEBHOOK = "receiver of an event when the task has ended, and its events"
_SINKS = "where the result goes, of the configured sinks; none: nowhere"


@_closed
class WebhookRequest(TypedDict):
    """Receiver of an event when the task has ended."""

    url: NotRequired[Annotated[str, Field(max_length=2048, description="https; default: webhooks.url")]]
    events: NotRequired[Annotated[list[WebhookEvent] | None, Field(min_length=1, description="default: webhooks.events")]]


@with_config(ConfigDict(json_schema_extra={"examples": [{"request_id": "photo-17"}]}))
class Metadata(TypedDict):
    """Options of one image. Other members are notes of your own, except misspellings of these."""

    request_id: NotRequired[RequestId | int | None]
    model: NotRequired[Model | None]
    deadline_s: NotRequired[Deadline | None]
    mode: NotRequired[Mode | None]
    priority: NotRequired[Priority | None]
    sinks: NotRequired[Annotated[list[str] | None, Field(description=_SINKS)]]
    shape: NotRequired[
        Annotated[list[Annotated[int, Field(ge=1)]] | str | None, Field(description=f"{_SHAPE}; also as text, 32,32,3")]
    ]
    dtype: NotRequired[Dtype | None]
    top_k: NotRequired[TopK | None]
    prediction: NotRequired[WithPrediction | None]
    webhook: NotRequired[
        Annotated[WebhookRequest | str | bool | None, Field(description=f"{_WEBHOOK}; its URL alone: all events; false: none")]
    ]


@_closed
class Options(TypedDict):
    """Options of one image as fields of a form or parameters of a query."""

    request_id: NotRequired[RequestId]
    model: NotRequired[Model]
    deadline_s: NotRequired[Deadline]
    mode: NotRequired[Mode]
    priority: NotRequired[Priority]
    sinks: NotRequired[Annotated[str, Field(description=f"{_SINKS}; separated by commas")]]
    shape: NotRequired[Annotated[str, Field(description=f"{_SHAPE}: 32,32,3")]]
    dtype: NotRequired[Dtype]
    top_k: NotRequired[TopK]
    prediction: NotRequired[WithPrediction]
    webhook: NotRequired[Annotated[str, Field(description=f"{_WEBHOOK}: as JSON, or its URL alone")]]
    command: NotRequired[Literal["predict"]]


@_closed
class PredictQuery(Options):
    """Options of one image as query parameters."""

    metadata: NotRequired[Annotated[str, Field(description="the options as a JSON object")]]


class _OneImage(TypedDict):
    image: Annotated[File, Field(description="PNG, JPEG, WebP or .npy; the bytes of an array with shape and dtype")]


class _ManyImages(TypedDict):
    image: Annotated[list[File], Field(min_length=1, description="each image as a file, all with the name image")]


@_closed
class PredictForm(_OneImage, Options):
    """One image and its options."""

    metadata: NotRequired[Metadata]


@_closed
class BatchForm(_ManyImages, Options):
    """Many images, and the options of all of them."""

    metadata: NotRequired[
        Annotated[Metadata | list[Metadata], Field(description="one object for all images, or a list with one for each")]
    ]


_Base64 = Field(pattern="^[A-Za-z0-9+/]+={0,2}$", json_schema_extra={"contentEncoding": "base64"})
_IMAGE_URL = "s3://BUCKET/KEY, data:image/png;base64,…, or https://HOST/PATH if the settings allow it"


@_closed
class ImageInBase64(TypedDict):
    """Bytes of an image."""

    base64: Annotated[str, _Base64]


@_closed
class ImageAtUrl(TypedDict):
    """URL of an image."""

    url: Annotated[str, Field(pattern="^(s3://[^/]+/.+|data:.*;base64,.+|https?://.+)$", description=_IMAGE_URL)]


class ImageItem(Metadata):
    """Image of a batch, and its options."""

    image: ImageInBase64 | ImageAtUrl


class ObjectItem(Metadata):
    """Image of a batch in the object store, and its options."""

    object: Annotated[str, Field(pattern=r"^s3://[^/]+/.+", description="s3://BUCKET/KEY")]


class PredictBody(ImageItem):
    """One image and its options."""

    command: NotRequired[Literal["predict"]]


class BatchBody(Metadata):
    """Many images, and the options of all of them."""

    items: Annotated[list[ImageItem | ObjectItem], Field(min_length=1)]
    command: NotRequired[Literal["predict"]]


LocalFile = Annotated[
    bool, Field(description="true: the files are paths on the worker's host; false: objects of the model bucket")
]
Url = Annotated[str, Field(max_length=4096)]


@_closed
class ChangeEnsembleMode(TypedDict):
    """Command that changes the sinks of new tasks."""

    command: Literal["change_ensemble_mode"]
    ensemble_mode: Annotated[bool, Field(description="true: results go to Kafka; false: to MongoDB")]
    local_file: NotRequired[Annotated[bool, Field(description="has no effect here")]]


@_closed
class LoadNewModel(TypedDict):
    """Command that makes another configured model the served one, with the configuration's files."""

    command: Literal["load_new_model"]
    model_id: str
    local_file: NotRequired[Annotated[bool, Field(description="has no effect here")]]


@_closed
class LoadNewWeights(TypedDict):
    """Command that replaces the files of a model."""

    command: Literal["load_new_weights", "modify_weights"]
    weights_url: Url
    architecture_url: NotRequired[Annotated[Url, Field(description="default: the model keeps its architecture")]]
    local_file: NotRequired[LocalFile]
    model_id: NotRequired[Annotated[str, Field(description="default: the served model")]]
    model: NotRequired[Annotated[str, Field(description="another name of model_id")]]


@_closed
class CommandQuery(TypedDict):
    """Fields of a command as query parameters."""

    command: NotRequired[Literal["change_ensemble_mode", "load_new_model", "load_new_weights", "modify_weights"]]
    ensemble_mode: NotRequired[bool]
    model_id: NotRequired[str]
    model: NotRequired[str]
    weights_url: NotRequired[Url]
    architecture_url: NotRequired[Url]
    local_file: NotRequired[LocalFile]


@_closed
class CommandForm(CommandQuery):
    """A command and its fields, of which each command has some: see the schemas of the JSON body."""


REQUEST_SCHEMAS: tuple[Any, ...] = (
    PredictQuery,
    PredictForm,
    PredictBody,
    BatchForm,
    BatchBody,
    ChangeEnsembleMode,
    LoadNewModel,
    LoadNewWeights,
    CommandQuery,
    CommandForm,
)
