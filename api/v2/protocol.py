"""Documents of the protocol: requests as they are read, and answers as the OpenAPI document describes them.

Members that are not named here are ignored, as the protocol allows, except misspellings of these.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypeVar

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError
from typing_extensions import TypedDict

from api.forms.known_fields import check_members
from inference.errors import InvalidRequest, shown, shown_name
from inference.ids import MAX_REQUEST_ID_LENGTH

#: Lengths of a tensor's dimensions: numpy has no longer ones, and their product is quick to compute.
_Length = Annotated[int, Field(ge=1, le=2**31 - 1)]
#: No image or list of images has as many dimensions.
_MAX_DIMENSIONS = 8


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class InputParameters(_Model):
    """Parameters of an input tensor."""

    binary_data_size: Annotated[int | None, Field(ge=0, description="bytes of its data after the JSON object")] = None
    shared_memory_region: Annotated[Any, Field(description="refused: there is no shared memory")] = None


class InputTensor(_Model):
    """Tensor in a request."""

    name: Annotated[str, Field(description="image")]
    datatype: Annotated[str, Field(description="UINT8, FP32, another number, or BYTES: an image file for each element")]
    shape: Annotated[list[_Length], Field(min_length=1, max_length=_MAX_DIMENSIONS, description="the batch comes first")]
    parameters: InputParameters | None = None
    data: Annotated[Any, Field(description="flat or nested list; of BYTES, texts in base64")] = None


class OutputParameters(_Model):
    """Parameters of a requested output."""

    binary_data: Annotated[bool | None, Field(description="whether its data comes after the JSON object")] = None
    classification: Annotated[
        int | None, Field(ge=0, description="of prediction: so many classes as VALUE:INDEX:LABEL instead of the vector")
    ] = None
    shared_memory_region: Annotated[Any, Field(description="refused: there is no shared memory")] = None


class RequestedOutput(_Model):
    """Output that an answer is to have."""

    name: Annotated[str, Field(description="prediction or label")]
    parameters: OutputParameters | None = None


class InferParameters(_Model):
    """Parameters of a request."""

    binary_data_output: Annotated[bool | None, Field(description="binary data for all outputs that do not say")] = None
    priority: Annotated[int | None, Field(ge=0, description="1 goes first, 9 last, 0 and over 9 are usual")] = None
    timeout: Annotated[int | None, Field(ge=0, description="microseconds until the tasks expire; 0: the default")] = None
    deadline_s: Annotated[float | None, Field(description="the same in seconds")] = None
    sinks: Annotated[str | None, Field(description="where results go, separated by commas; empty: nowhere")] = None
    idempotent: Annotated[bool | None, Field(description="the id is the Idempotency-Key")] = None
    sequence_id: Annotated[Any, Field(description="refused: models here have no state")] = None


class InferRequest(_Model):
    """Request for an inference, without its binary data."""

    id: Annotated[
        str | None, Field(max_length=MAX_REQUEST_ID_LENGTH, description="the request id of every task; the answer has it")
    ] = None
    parameters: InferParameters | None = None
    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=1)]
    outputs: Annotated[list[RequestedOutput] | None, Field(max_length=2, description="default: all")] = None


class IndexRequest(_Model):
    """Request for the models of the repository."""

    ready: Annotated[bool | None, Field(description="only models that are ready")] = None


class LoadParameters(_Model):
    """Parameters of a load."""

    model_config = ConfigDict(extra="forbid")

    weights_url: Annotated[str | None, Field(description="an object of the model bucket to load instead")] = None
    architecture_url: Annotated[str | None, Field(description="of weights without their architecture")] = None


class LoadRequest(_Model):
    """Request to load a model."""

    parameters: LoadParameters | None = None


M = TypeVar("M", bound=BaseModel)


def read_document(kind: type[M], document: Any) -> M:
    """Read a JSON value as a document of the protocol. Raises InvalidRequest, with the place of the problem."""
    if not isinstance(document, dict):
        raise InvalidRequest(f"the body is {shown(document)}", expected="a JSON object")
    check_members(document, _known(kind), "the body")
    parameters = document.get("parameters")
    if isinstance(parameters, dict) and kind is InferRequest:
        check_members(parameters, _known(InferParameters), "parameters")
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(shown_name(str(part)) for part in first["loc"])
        raise InvalidRequest(f"{place}: {first['msg']}", field=place) from error


def _known(kind: type[BaseModel]) -> frozenset[str]:
    return frozenset(kind.model_fields)


class V2Error(TypedDict):
    """Error of the protocol."""

    error: str


class ServerMetadata(TypedDict):
    """Description of the server."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(TypedDict):
    """Answer of a process that runs."""

    live: Literal[True]


class ServerReady(TypedDict):
    """Whether a request would be served now."""

    ready: bool


class ModelReady(TypedDict):
    """Whether a worker has the model loaded."""

    name: str
    ready: bool


class TensorMetadata(TypedDict):
    """Description of a tensor."""

    name: str
    datatype: str
    shape: Annotated[list[int], Field(description="-1 for any length")]


class ModelMetadata(TypedDict):
    """Description of a model."""

    name: str
    versions: list[str]
    platform: Annotated[str, Field(description="library that runs it; empty if no worker has it loaded")]
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class TensorParameters(TypedDict):
    """Parameters of a tensor in an answer."""

    binary_data_size: Annotated[int, Field(ge=0)]


class OutputTensor(TypedDict):
    """Tensor in an answer."""

    name: str
    datatype: str
    shape: list[int]
    parameters: NotRequired[TensorParameters]
    data: NotRequired[Annotated[list[Any], Field(description="flat; missing if the data is binary")]]


class AnswerParameters(TypedDict):
    """Parameters of an answer."""

    batch_id: str
    task_ids: Annotated[str, Field(description="the task of each image, in order, separated by commas")]


class InferAnswer(TypedDict):
    """Answer to an inference, without its binary data."""

    model_name: str
    model_version: str
    id: NotRequired[str]
    parameters: AnswerParameters
    outputs: list[OutputTensor]


class IndexEntry(TypedDict):
    """Model in the repository."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


class RepositoryIndex(RootModel[list[IndexEntry]]):
    """Models in the repository."""


class LoadAnswer(TypedDict):
    """Answer to a load."""

    name: str
    load: Literal[True]
