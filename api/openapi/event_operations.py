"""Operations that stream events."""

from __future__ import annotations

from api.openapi.answer_schemas import Task
from api.openapi.event_schemas import BatchProgress, IndexedBatchItem, TaskChanges
from api.openapi.operation import OF_PATHS, Answer, Operation
from api.openapi.parts import BATCH_ID, LAST_EVENT_ID, MODEL, OWNER, REQUEST_ID, STATUS, TASK_ID, query
from api.security.needed_role import NeededRole
from inference.errors import BatchNotFound, Forbidden, TaskNotFound

_EVENT_STREAM = "text/event-stream"
_PREDICTION = query("prediction", "whether results have their `prediction`", type="boolean", default=False)
_NOTHING_MORE = Answer(204, "Nothing more comes: `Last-Event-ID` is the last event.", media_type=None)

EVENT_OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "stream_task",
        "get",
        "/tasks/{task_id}/events",
        "events",
        "Follow a task",
        role=NeededRole.ANY,
        description="Server-sent events `task`: one at once, one for each change of its status. The stream ends with the task.",
        parameters=(TASK_ID, _PREDICTION, LAST_EVENT_ID),
        answers=(Answer(200, "The events.", media_type=_EVENT_STREAM, item_schemas=(Task,)), _NOTHING_MORE),
        own_problems=(*OF_PATHS, TaskNotFound),
    ),
    Operation(
        "stream_batch",
        "get",
        "/batches/{batch_id}/events",
        "events",
        "Follow a batch",
        role=NeededRole.ANY,
        description="Server-sent events: `batch` with the counts, and `item` for each item that has ended. The last event is the "
        "`batch` whose status is `ended`.",
        parameters=(BATCH_ID, _PREDICTION, LAST_EVENT_ID),
        answers=(
            Answer(200, "The events.", media_type=_EVENT_STREAM, item_schemas=(BatchProgress, IndexedBatchItem)),
            _NOTHING_MORE,
        ),
        own_problems=(*OF_PATHS, BatchNotFound),
    ),
    Operation(
        "stream_tasks",
        "get",
        "/events",
        "events",
        "Follow all tasks, or a selection",
        role=NeededRole.ANY,
        description="Server-sent events `tasks`: first the newest tasks, then all that were accepted or have changed since the "
        "last event. The stream does not end by itself.",
        parameters=(STATUS, MODEL, REQUEST_ID, OWNER),
        answers=(Answer(200, "The events.", media_type=_EVENT_STREAM, item_schemas=(TaskChanges,)),),
        own_problems=(Forbidden,),
    ),
)
