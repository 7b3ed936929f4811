"""Routes of erasures: remove everything of tasks, and ask for the work that other stores still have."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from flask import Blueprint, Response

from api.components import components
from api.forms.query import check_query, read_query
from api.forms.task_query import read_flag
from api.security.caller import caller
from api.security.request_audit import audited
from api.security.task_access import task_access
from api.views.responses import json_response
from api.views.urls import erasure_url
from inference.domain import TaskRecord
from inference.errors import InvalidRequest, TaskNotFound, shown
from inference.lifecycle.erasures import find_tasks
from inference.task_store import ErasureProgress, TaskFilter, no_erasure

blueprint = Blueprint("erasures", __name__)

#: Tasks that one request erases at most.
_LIMIT = 500


@blueprint.delete("/tasks")
def erase_tasks() -> Response:
    """Erase the tasks of a request id: the newest, up to a limit."""
    check_query({"request_id", "erase"})
    query = read_query()
    request_id = query.get("request_id", "")
    if not request_id:
        raise InvalidRequest("request_id is missing", field="request_id", expected="the request id whose tasks are to be erased")
    if not read_flag(query, "erase"):
        raise InvalidRequest("these tasks can only be erased", field="erase", expected="erase=true")
    wanted = task_access().narrow(TaskFilter(request_id))
    components().operation_rate.count(caller())
    records, has_more = find_tasks(components().services.store, wanted, limit=_LIMIT)
    if not records:
        raise TaskNotFound(f"there is no task with the request id {shown(request_id)}")
    return _erased(records, target=f"tasks with the request id {request_id}", has_more=has_more)


def erase_task(task_id: str) -> Response:
    """Erase one task."""
    return _erased([task_access().get_for_change(task_id)], target=task_id)


@blueprint.get("/erasures/<erasure_id>")
def get_erasure(erasure_id: str) -> Response:
    """Return the progress of an erasure."""
    check_query()
    progress = components().services.store.get_erasure(erasure_id)
    if not caller().sees_all and progress.owner != caller().owner:
        raise no_erasure(erasure_id)
    return json_response(_view(progress))


def _erased(records: Sequence[TaskRecord], *, target: str, has_more: bool = False) -> Response:
    with audited("task.erase", target) as line:
        progress = components().services.erasures.erase(records, owner=caller().owner)
        line |= {"tasks": progress.tasks, "erasure_id": progress.erasure_id}
    document = {**_view(progress), "task_ids": [record.task_id for record in records], "has_more": has_more}
    status = HTTPStatus.OK if progress.is_done else HTTPStatus.ACCEPTED
    return json_response(document, status, headers={"Location": erasure_url(progress.erasure_id)})


def _view(progress: ErasureProgress) -> dict[str, object]:
    return {
        "erasure_id": progress.erasure_id,
        "status": "done" if progress.is_done else "pending",
        "tasks": progress.tasks,
        "stores": {"records": "erased", **progress.stores},
        "urls": {"self": erasure_url(progress.erasure_id)},
    }
