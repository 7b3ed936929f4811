"""Operations that describe the service and the caller's key."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from api.openapi.answer_schemas import (
    Description,
    Liveness,
    ModelDetails,
    ModelList,
    Overview,
    Readiness,
    ServiceStatus,
    Time,
)
from api.openapi.operation import OF_PATHS, Answer, Operation
from api.openapi.parts import path_text
from api.security.needed_role import NeededRole
from inference.access import Role
from inference.errors import ModelNotFound


class KeyLimits(TypedDict):
    """Limits of a key's use; null: none."""

    requests_per_s: float | None
    burst: Annotated[int | None, Field(description="requests at once after a pause; null: those of one second")]
    images_per_day: int | None
    bytes_per_day: int | None
    waiting_tasks: Annotated[int | None, Field(description="tasks accepted and not ended")]
    max_deadline_s: float | None
    max_priority: int | None


class KeyUse(TypedDict):
    """Use of the service by the key's owner, with all its keys."""

    requests_left: Annotated[int | None, Field(description="requests that may come at once; null: there is no limit")]
    images_today: Annotated[int, Field(description="images of the day, which ends at 00:00 UTC")]
    bytes_today: int
    open_tasks: Annotated[int, Field(description="tasks accepted and not ended")]


class CallerKey(TypedDict):
    """Key of the request."""

    owner: Annotated[str, Field(description="owner of the tasks that are accepted with it; empty if the service has no keys")]
    role: Role
    key_id: Annotated[str | None, Field(description="its id, which is not secret; null if the service has no keys")]
    limits: KeyLimits
    use: Annotated[KeyUse | None, Field(description="null without keys, and while the record store does not answer")]
    expires_at: Annotated[Time | None, Field(description="null: it does not expire")]


DESCRIBE = Operation(
    "describe",
    "get",
    "/inference",
    "service",
    "Describe the service",
    role=NeededRole.ANY,
    answers=(Answer(200, "The served model, and where results go.", (Description,)),),
)

KEY_SCHEMAS: tuple[type, ...] = (CallerKey,)

SERVICE_OPERATIONS: tuple[Operation, ...] = (
    DESCRIBE,
    Operation(
        "index",
        "get",
        "/",
        "service",
        "Describe the service, its models and its paths",
        role=NeededRole.NONE,
        answers=(
            Answer(200, "The description.", (Overview,)),
            Answer(303, "For a request that would rather have HTML: the console.", media_type="text/html", headers=("Location",)),
        ),
    ),
    Operation(
        "get_key",
        "get",
        "/key",
        "service",
        "Get owner, role and limits of the request's key",
        role=NeededRole.ANY,
        answers=(Answer(200, "The key, without its secret.", (CallerKey,)),),
    ),
    Operation(
        "list_models",
        "get",
        "/models",
        "service",
        "List the models",
        role=NeededRole.ANY,
        answers=(Answer(200, "The models, without their labels.", (ModelList,)),),
    ),
    Operation(
        "get_model",
        "get",
        "/models/{name}",
        "service",
        "Describe a model",
        role=NeededRole.ANY,
        parameters=(path_text("name", minLength=1),),
        answers=(Answer(200, "The model, with its labels and workers.", (ModelDetails,)),),
        own_problems=(*OF_PATHS, ModelNotFound),
    ),
    Operation(
        "get_status",
        "get",
        "/status",
        "service",
        "Get the state of stores, queues, workers and sinks",
        role=NeededRole.READ,
        answers=(Answer(200, "The state, with problems or without.", (ServiceStatus,)),),
    ),
    Operation(
        "get_metrics",
        "get",
        "/metrics",
        "service",
        "Get the metrics of the API and of the whole service, for Prometheus",
        role=NeededRole.READ,
        answers=(Answer(200, "The metrics, in Prometheus' text format.", media_type="text/plain"),),
    ),
    Operation(
        "live",
        "get",
        "/health/live",
        "service",
        "Ask whether the process runs",
        role=NeededRole.NONE,
        answers=(Answer(200, "It runs.", (Liveness,)),),
    ),
    Operation(
        "ready",
        "get",
        "/health/ready",
        "service",
        "Ask whether a request would be served now",
        role=NeededRole.NONE,
        answers=(Answer(200, "It would.", (Readiness,)), Answer(503, "It would not, or not for long.", (Readiness,))),
    ),
)
