"""Operations of erasures, and the schemas of their documents."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from api.openapi.answer_schemas import Count
from api.openapi.operation import OF_PATHS, Answer, Operation
from api.openapi.parts import path_text, query
from api.security.needed_role import NeededRole
from inference.errors import ErasureNotFound, TaskNotFound
from inference.ids import TASK_ID_PATTERN

State = Literal["pending", "erased", "cannot"]


class ErasureUrls(TypedDict):
    """Paths of an erasure."""

    self: str


class Erasure(TypedDict):
    """Progress of an erasure, which names none of its tasks."""

    erasure_id: str
    status: Annotated[Literal["pending", "done"], Field(description="done: no store is pending")]
    tasks: Annotated[Count, Field(description="number of tasks")]
    stores: Annotated[
        dict[str, State],
        Field(description="`records`, `images`, and each sink that has a result; `cannot`: the sink cannot delete it"),
    ]
    urls: ErasureUrls


class Erased(Erasure):
    """Erasure that was just begun."""

    task_ids: Annotated[list[str], Field(description="the tasks")]
    has_more: Annotated[bool, Field(description="whether the request id has more tasks: send the request again")]


ERASURE_SCHEMAS: tuple[type, ...] = (Erasure, Erased)

ERASE = query("erase", "remove everything of the task instead", type="boolean", default=False)
ERASED_ANSWER = Answer(202, "Erased here; a store will follow.", (Erased,), headers=("Location",))

ERASURE_OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "erase_tasks",
        "delete",
        "/tasks",
        "tasks",
        "Erase the tasks of a request id",
        role=NeededRole.PREDICT,
        description="Up to 500, the newest first: records, images, dead letters, results in sinks that can delete.",
        parameters=(
            query("request_id", "the request id", required=True, type="string", minLength=1, examples=["photo-17"]),
            query("erase", "has to be true", required=True, type="boolean", enum=[True]),
        ),
        answers=(Answer(200, "Erased everywhere, or as far as possible.", (Erased,), headers=("Location",)), ERASED_ANSWER),
        own_problems=(TaskNotFound,),
    ),
    Operation(
        "get_erasure",
        "get",
        "/erasures/{erasure_id}",
        "tasks",
        "Get the progress of an erasure, for a day",
        role=NeededRole.ANY,
        parameters=(path_text("erasure_id", pattern=f"^{TASK_ID_PATTERN}$"),),
        answers=(Answer(200, "The progress.", (Erasure,)),),
        own_problems=(*OF_PATHS, ErasureNotFound),
    ),
)
