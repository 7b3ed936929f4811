"""Operations on dead letters, and the schema of their list."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from api.openapi.answer_schemas import Task
from api.openapi.operation import OF_PATHS, Answer, Operation
from api.openapi.parts import TASK_ID, query
from api.security.needed_role import NeededRole
from inference.errors import IdempotencyConflict, Overloaded, TaskNotFound


class DeadLetterList(TypedDict):
    """Oldest dead letters."""

    tasks: Annotated[list[Task], Field(description="oldest first, without `prediction`")]
    count: Annotated[int, Field(ge=0, description="number of all dead letters")]


DEAD_LETTER_SCHEMAS: tuple[type, ...] = (DeadLetterList,)

DEAD_LETTER_OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "list_dead_letters",
        "get",
        "/dead-letters",
        "tasks",
        "List dead letters, oldest first",
        role=NeededRole.ADMIN,
        description="Tasks that were given up, and tasks whose result a sink refused.",
        parameters=(query("limit", "dead letters of the list", type="integer", minimum=1, maximum=500, default=50),),
        answers=(Answer(200, "The oldest dead letters.", (DeadLetterList,)),),
    ),
    Operation(
        "replay_dead_letter",
        "post",
        "/dead-letters/{task_id}/replay",
        "tasks",
        "Deliver a refused result again, or run an image that was given up again as a new task",
        role=NeededRole.ADMIN,
        description="It is a dead letter no more. A repeated request starts no second task.",
        parameters=(TASK_ID,),
        answers=(
            Answer(
                202,
                "The task that goes on: the same one, or the new one.",
                (Task,),
                headers=("Location", "Task-Id"),
                links=("get_task", "cancel_task"),
            ),
        ),
        own_problems=(*OF_PATHS, TaskNotFound, IdempotencyConflict, Overloaded),
    ),
    Operation(
        "discard_dead_letter",
        "delete",
        "/dead-letters/{task_id}",
        "tasks",
        "Give up a dead letter",
        role=NeededRole.ADMIN,
        description="Its image is deleted, and a sink that refused the result does not get it.",
        parameters=(TASK_ID,),
        answers=(Answer(200, "The task.", (Task,)),),
        own_problems=(*OF_PATHS, TaskNotFound),
    ),
)
