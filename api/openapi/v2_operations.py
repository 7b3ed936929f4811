"""Operations of the Open Inference Protocol, and their schemas."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from api.openapi.operation import BINARY, JSON, OF_BODIES, OF_COMMANDS, OF_IMAGES, OF_PATHS, Answer, Content, Operation, Problems
from api.openapi.parts import IDEMPOTENCY_KEY, OF_LIMITS, header, path_text
from api.security.needed_role import NeededRole
from api.v2.body import HEADER_LENGTH
from api.v2.protocol import (
    IndexRequest,
    InferAnswer,
    InferRequest,
    LoadAnswer,
    LoadRequest,
    ModelMetadata,
    ModelReady,
    RepositoryIndex,
    ServerLive,
    ServerMetadata,
    ServerReady,
    V2Error,
)
from inference.errors import (
    DeadlineExceeded,
    ModelNotFound,
    PredictionFailed,
    PredictorDied,
    TaskCanceled,
    TaskNotFound,
    UploadLost,
)

_TAG = "v2"
_NAME, _VERSION = path_text("name", minLength=1), path_text("version", minLength=1)
_OF_MODELS: Problems = (*OF_PATHS, ModelNotFound)
_JSON_LENGTH = header(HEADER_LENGTH, "bytes of the JSON object in a body with binary data", type="integer", minimum=0)
#: An image of 8x8 pixels as a PNG file in base64.
_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAEElEQVR4nGOMYoAAJgaKGAAbfgBqEMfrVAAAAABJRU5ErkJggg=="
_IMAGE = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [_PNG]}

_GET_MODEL = Operation(
    "v2_get_model",
    "get",
    "/v2/models/{name}",
    _TAG,
    "Describe a model with its tensors",
    role=NeededRole.ANY,
    parameters=(_NAME,),
    answers=(Answer(200, "The model.", (ModelMetadata,)),),
    own_problems=_OF_MODELS,
)
_MODEL_READY = Operation(
    "v2_model_ready",
    "get",
    "/v2/models/{name}/ready",
    _TAG,
    "Ask whether a worker has a model loaded",
    role=NeededRole.ANY,
    parameters=(_NAME,),
    answers=(Answer(200, "It has.", (ModelReady,)), Answer(503, "None has.", (ModelReady,))),
    own_problems=_OF_MODELS,
)
_INFER = Operation(
    "v2_infer",
    "post",
    "/v2/models/{name}/infer",
    _TAG,
    "Classify the images of a tensor",
    role=NeededRole.PREDICT,
    description="Each image becomes a task; if one is refused or fails, the answer is its error. Binary data of the tensor "
    "follows the JSON object. The body may be compressed with gzip or deflate.",
    parameters=(_NAME, _JSON_LENGTH, IDEMPOTENCY_KEY),
    body={
        JSON: Content(
            (InferRequest,),
            examples={
                "file": {"inputs": [_IMAGE]},
                "label": {"id": "photo-17", "inputs": [_IMAGE], "outputs": [{"name": "label"}]},
            },
        ),
        BINARY: Content(()),
    },
    answers=(
        Answer(
            200,
            "The outputs; binary ones follow the JSON object.",
            (InferAnswer,),
            other_media_types=(BINARY,),
            headers=("Batch-Id", "Content-Encoding", "Idempotent-Replayed", HEADER_LENGTH, *OF_LIMITS),
        ),
    ),
    own_problems=(
        *OF_PATHS,
        *OF_IMAGES,
        TaskCanceled,
        TaskNotFound,
        PredictionFailed,
        PredictorDied,
        UploadLost,
        DeadlineExceeded,
    ),
)


def _of_version(operation: Operation) -> Operation:
    """Return the same operation with the model's version in the path."""
    path = operation.path.replace("{name}", "{name}/versions/{version}")
    name, *others = operation.parameters
    return replace(
        operation, operation_id=f"{operation.operation_id}_of_version", path=path, parameters=(name, _VERSION, *others)
    )


V2_OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "v2_get_server",
        "get",
        "/v2",
        _TAG,
        "Describe the server",
        role=NeededRole.ANY,
        answers=(Answer(200, "Name, version and extensions.", (ServerMetadata,)),),
    ),
    Operation(
        "v2_live",
        "get",
        "/v2/health/live",
        _TAG,
        "Ask whether the process runs",
        role=NeededRole.NONE,
        answers=(Answer(200, "It runs.", (ServerLive,)),),
    ),
    Operation(
        "v2_ready",
        "get",
        "/v2/health/ready",
        _TAG,
        "Ask whether a request would be served now",
        role=NeededRole.NONE,
        answers=(Answer(200, "It would.", (ServerReady,)), Answer(503, "It would not.", (ServerReady,))),
    ),
    _GET_MODEL,
    _of_version(_GET_MODEL),
    _MODEL_READY,
    _of_version(_MODEL_READY),
    _INFER,
    _of_version(_INFER),
    Operation(
        "v2_index",
        "post",
        "/v2/repository/index",
        _TAG,
        "List the models",
        role=NeededRole.ANY,
        body={JSON: Content((IndexRequest,), examples={"all": {}, "ready": {"ready": True}})},
        answers=(Answer(200, "The models.", (RepositoryIndex,)),),
        own_problems=OF_BODIES,
    ),
    Operation(
        "v2_load",
        "post",
        "/v2/repository/models/{name}/load",
        _TAG,
        "Load the files of a model",
        role=NeededRole.ADMIN,
        description="Those that the request names; else the configured files, if a command has replaced them.",
        parameters=(_NAME,),
        body={JSON: Content((LoadRequest,), examples={"configured": {}})},
        answers=(Answer(200, "Every worker has loaded them.", (LoadAnswer,)),),
        own_problems=(*OF_PATHS, *OF_COMMANDS),
    ),
    Operation(
        "v2_unload",
        "post",
        "/v2/repository/models/{name}/unload",
        _TAG,
        "Unload a model: always refused",
        role=NeededRole.ADMIN,
        description="Workers keep the models of the configuration loaded.",
        parameters=(_NAME,),
        answers=(),
        own_problems=_OF_MODELS,
    ),
)

V2_ANSWER_SCHEMAS: tuple[Any, ...] = (
    V2Error,
    ServerMetadata,
    ServerLive,
    ServerReady,
    ModelMetadata,
    ModelReady,
    InferAnswer,
    RepositoryIndex,
    LoadAnswer,
)
V2_REQUEST_SCHEMAS: tuple[Any, ...] = (InferRequest, IndexRequest, LoadRequest)
