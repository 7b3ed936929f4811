"""All operations of the API, in the order of the description."""

from __future__ import annotations

from dataclasses import replace

from api.openapi.answer_schemas import (
    Batch,
    CommandAnswer,
    OpenApiDocument,
    Prediction,
    Task,
    TaskPage,
)
from api.openapi.console_operations import CONSOLE_OPERATIONS
from api.openapi.dead_letter_operations import DEAD_LETTER_OPERATIONS
from api.openapi.erasure_operations import ERASE, ERASED_ANSWER, ERASURE_OPERATIONS, Erased
from api.openapi.event_operations import EVENT_OPERATIONS
from api.openapi.event_schemas import BatchProgress, IndexedBatchItem
from api.openapi.operation import (
    JSON,
    MULTIPART,
    OF_COMMANDS,
    OF_IMAGES,
    OF_PATHS,
    URLENCODED,
    Answer,
    Content,
    Operation,
)
from api.openapi.parts import (
    BATCH_ID,
    IDEMPOTENCY_KEY,
    MODEL,
    OF_LIMITS,
    OWNER,
    PREFER,
    REQUEST_ID,
    STATUS,
    TASK_ID,
    WAIT,
    path_text,
    query,
    query_fields,
)
from api.openapi.request_schemas import (
    BatchBody,
    BatchForm,
    ChangeEnsembleMode,
    CommandForm,
    CommandQuery,
    LoadNewModel,
    LoadNewWeights,
    PredictBody,
    PredictForm,
    PredictQuery,
)
from api.openapi.service_operations import DESCRIBE, SERVICE_OPERATIONS
from api.openapi.upload_operations import UPLOAD_OPERATIONS
from api.openapi.v2_operations import V2_OPERATIONS
from api.security.needed_role import NeededRole
from inference.errors import (
    BatchNotFound,
    DeadlineExceeded,
    Forbidden,
    ImageGone,
    ImageNotFound,
    PayloadTooLarge,
    PredictionFailed,
    PredictorDied,
    TaskAlreadyFinished,
    TaskCanceled,
    TaskNotFinished,
    TaskNotFound,
    UploadLost,
)

_IMAGE_TYPES = "image/png, image/jpeg, image/webp, application/octet-stream"
_PART_TYPES = {"image": _IMAGE_TYPES, "metadata": JSON}
_OPTIONS_IN_QUERY = query_fields(PredictQuery, "each option may also be a query parameter of its own")
_COMMAND_IN_QUERY = query_fields(CommandQuery, "each field of a command may also be a query parameter of its own")
_COMMANDS = Content(
    (ChangeEnsembleMode, LoadNewModel, LoadNewWeights),
    examples={
        "load_new_model": {"command": "load_new_model", "model_id": "digits"},
        "load_new_weights": {"command": "load_new_weights", "weights_url": "digits/2.keras", "model_id": "digits"},
        "change_ensemble_mode": {"command": "change_ensemble_mode", "ensemble_mode": True},
    },
)
_COMMAND_FORM = Content((CommandForm,))
#: A digit, 8 by 8 pixels.
_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAFklEQVR42mNgQAb/GRgYmGAcYhhwAAA7dgEK7tLQGgAAAABJRU5ErkJggg=="
_IMAGES = {
    "base64": {"image": {"base64": _PNG}, "top_k": 3},
    "data": {"image": {"url": f"data:image/png;base64,{_PNG}"}},
    "object": {"image": {"url": "s3://inference/photos/17.jpg"}, "request_id": "photo-17"},
}

_PREDICT = Operation(
    "predict",
    "post",
    "/inference",
    "predictions",
    "Classify an image",
    role=NeededRole.PREDICT,
    description="Answers with the result, or at once with the task: see `Prefer`. A body with a `command` other than `predict` "
    "is a command of POST /inference_service_controller, as ROHE's clients send them.",
    parameters=(PREFER, IDEMPOTENCY_KEY, _OPTIONS_IN_QUERY),
    body={
        MULTIPART: Content((PredictForm,), part_types=_PART_TYPES),
        JSON: Content((PredictBody, *_COMMANDS.schemas), examples={**_IMAGES, **_COMMANDS.examples}),
        URLENCODED: _COMMAND_FORM,
    },
    answers=(
        Answer(
            200,
            "The result; of a command, the state after it.",
            (Prediction, CommandAnswer),
            headers=("Task-Id", "Server-Timing", "Preference-Applied", "Idempotent-Replayed", *OF_LIMITS),
            links=("get_task",),
        ),
        Answer(
            202,
            "The task, which goes on.",
            (Task,),
            headers=("Location", "Task-Id", "Preference-Applied", "Idempotent-Replayed", *OF_LIMITS),
            links=("get_task", "cancel_task"),
        ),
    ),
    own_problems=(
        *OF_IMAGES,
        *OF_COMMANDS,
        TaskCanceled,
        PredictionFailed,
        PredictorDied,
        UploadLost,
        DeadlineExceeded,
    ),
    has_webhook=True,
)

OPERATIONS: tuple[Operation, ...] = (
    _PREDICT,
    Operation(
        "predict_batch",
        "post",
        "/inference/batch",
        "predictions",
        "Classify many images",
        role=NeededRole.PREDICT,
        description="Each image becomes a task of its own; an image that is refused fails alone.",
        parameters=(PREFER, IDEMPOTENCY_KEY, _OPTIONS_IN_QUERY),
        body={
            MULTIPART: Content((BatchForm,), part_types=_PART_TYPES),
            JSON: Content(
                (BatchBody,),
                examples={
                    "images": {"items": list(_IMAGES.values())},
                    "objects": {"items": [{"object": "s3://inference/photos/17.jpg"}]},
                },
            ),
        },
        answers=(
            Answer(
                200,
                "The batch, of which every task has ended. As JSON Lines: each item when it has ended, then the counts.",
                (Batch,),
                item_schemas=(IndexedBatchItem, BatchProgress),
                headers=("Batch-Id", "Server-Timing", "Preference-Applied", "Idempotent-Replayed", *OF_LIMITS),
                links=("get_batch",),
            ),
            Answer(
                202,
                "The batch, which goes on.",
                (Batch,),
                item_schemas=(IndexedBatchItem, BatchProgress),
                headers=("Location", "Batch-Id", "Preference-Applied", "Idempotent-Replayed", *OF_LIMITS),
                links=("get_batch", "cancel_batch"),
            ),
        ),
        own_problems=OF_IMAGES,
        has_webhook=True,
    ),
    *UPLOAD_OPERATIONS,
    Operation(
        "get_batch",
        "get",
        "/batches/{batch_id}",
        "batches",
        "Get a batch, or wait for its end",
        role=NeededRole.ANY,
        parameters=(BATCH_ID, WAIT),
        answers=(Answer(200, "The batch.", (Batch,), item_schemas=(IndexedBatchItem, BatchProgress), links=("cancel_batch",)),),
        own_problems=(*OF_PATHS, BatchNotFound),
    ),
    Operation(
        "cancel_batch",
        "delete",
        "/batches/{batch_id}",
        "batches",
        "Cancel the tasks of a batch that have not ended",
        role=NeededRole.PREDICT,
        parameters=(BATCH_ID,),
        answers=(Answer(200, "The batch.", (Batch,)),),
        own_problems=(*OF_PATHS, BatchNotFound, TaskAlreadyFinished),
    ),
    Operation(
        "list_tasks",
        "get",
        "/tasks",
        "tasks",
        "List tasks, newest first",
        role=NeededRole.ANY,
        description="All conditions that are given must hold. A page may be empty and not be the last.",
        parameters=(
            STATUS,
            MODEL,
            REQUEST_ID,
            OWNER,
            query("since", "time of acceptance: RFC 3339, or seconds since the epoch", type="string", format="date-time"),
            query("limit", "tasks of a page", type="integer", minimum=1, maximum=500, default=50),
            query("cursor", "`next_cursor` of the page before, unchanged", type="string", pattern="^[0-9a-f]{16}$"),
            query("prediction", "whether results have their `prediction`", type="boolean", default=False),
        ),
        answers=(Answer(200, "A page of the tasks.", (TaskPage,), headers=("Link",)),),
        own_problems=(Forbidden,),
    ),
    Operation(
        "get_task",
        "get",
        "/tasks/{task_id}",
        "tasks",
        "Get a task, or wait for its end",
        role=NeededRole.ANY,
        parameters=(TASK_ID, WAIT),
        answers=(Answer(200, "The task.", (Task,), links=("cancel_task",)),),
        own_problems=(*OF_PATHS, TaskNotFound),
    ),
    Operation(
        "cancel_task",
        "delete",
        "/tasks/{task_id}",
        "tasks",
        "Cancel a task, or erase it",
        role=NeededRole.PREDICT,
        description="A queued task does not run; the result of a running one is discarded. With `erase`, everything of the task "
        "is removed, whether it has ended or not.",
        parameters=(TASK_ID, ERASE),
        answers=(Answer(200, "The task; with `erase`, the erasure.", (Task, Erased), headers=("Location",)), ERASED_ANSWER),
        own_problems=(*OF_PATHS, TaskNotFound, TaskAlreadyFinished),
    ),
    Operation(
        "get_image",
        "get",
        "/tasks/{task_id}/image",
        "tasks",
        "Get the image of a task, while it is kept",
        role=NeededRole.ANY,
        parameters=(TASK_ID,),
        answers=(
            Answer(
                200,
                "The bytes that were sent.",
                media_type="*/*",
                headers=("Content-Disposition", "Array-Shape", "Array-Dtype"),
            ),
        ),
        own_problems=(*OF_PATHS, TaskNotFound, ImageNotFound, PayloadTooLarge),
    ),
    Operation(
        "replay_task",
        "post",
        "/tasks/{task_id}/replay",
        "tasks",
        "Run the image of a task that has ended again, as a new task",
        role=NeededRole.PREDICT,
        parameters=(TASK_ID, IDEMPOTENCY_KEY),
        answers=(
            Answer(
                202,
                "The new task.",
                (Task,),
                headers=("Location", "Task-Id", "Idempotent-Replayed", *OF_LIMITS),
                links=("get_task", "cancel_task"),
            ),
        ),
        own_problems=(*OF_PATHS, TaskNotFound, TaskNotFinished, ImageGone, *OF_IMAGES),
    ),
    *ERASURE_OPERATIONS,
    *EVENT_OPERATIONS,
    Operation(
        "run_command",
        "post",
        "/inference_service_controller",
        "commands",
        "Change a model, the served model or the ensemble mode",
        role=NeededRole.ADMIN,
        description="Answered once every worker has applied it; if one of them cannot, nothing changes.",
        parameters=(_COMMAND_IN_QUERY,),
        body={JSON: _COMMANDS, URLENCODED: _COMMAND_FORM, MULTIPART: _COMMAND_FORM},
        answers=(Answer(200, "The state after the command.", (CommandAnswer,)),),
        own_problems=OF_COMMANDS,
    ),
    *SERVICE_OPERATIONS,
    Operation(
        "get_openapi",
        "get",
        "/openapi.json",
        "documentation",
        "Get this description",
        role=NeededRole.NONE,
        answers=(Answer(200, "OpenAPI 3.1.", (OpenApiDocument,)),),
    ),
    Operation(
        "show_docs",
        "get",
        "/docs",
        "documentation",
        "Read this description in a browser",
        role=NeededRole.NONE,
        answers=(Answer(200, "A page with Swagger UI.", media_type="text/html"),),
    ),
    Operation(
        "get_docs_file",
        "get",
        "/docs/{name}",
        "documentation",
        "Get a file of that page",
        role=NeededRole.NONE,
        parameters=(path_text("name", enum=["page.js", "swagger-ui-bundle.js", "swagger-ui.css"]),),
        answers=(Answer(200, "The file.", media_type="text/*"),),
        own_problems=OF_PATHS,
    ),
    *DEAD_LETTER_OPERATIONS,
    *CONSOLE_OPERATIONS,
    # ROHE's clients know these paths
    replace(
        _PREDICT, operation_id="predict_at_old_path", path="/inference_service", summary=f"{_PREDICT.summary}: as /inference"
    ),
    replace(
        DESCRIBE, operation_id="describe_at_old_path", path="/inference_service", summary=f"{DESCRIBE.summary}: as /inference"
    ),
    *V2_OPERATIONS,
)
