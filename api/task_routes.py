"""/tasks: ask for a task, wait for it, cancel it."""

from __future__ import annotations

from flask import Blueprint, Response, request

from api.context import api
from api.query import check_query
from api.responses import json_response
from api.task_view import task_view
from api.waiting import asked_wait_s
from inference.errors import InvalidRequest
from inference.messages import TaskRecord

blueprint = Blueprint("tasks", __name__, url_prefix="/tasks")


@blueprint.get("/<task_id>")
def get_task(task_id: str) -> Response:
    check_query({"wait"})
    wait_s = asked_wait_s()
    record = api().services.store.get(task_id)
    if wait_s and record.outcome is None:
        with api().replies.expect(task_id) as waiter:
            record = api().services.store.get(task_id)  # it may have ended before anyone listened
            if record.outcome is None and waiter.wait(wait_s) is not None:
                record = api().services.store.get(task_id)
    return _task(record)


@blueprint.get("")
def find_tasks() -> Response:
    request_id = request.args.get("request_id")
    if not request_id:
        raise InvalidRequest("which tasks?", field="request_id", expected="GET /tasks?request_id=…")
    store = api().services.store
    records = store.get_many(store.find_by_request(request_id))
    return json_response({"tasks": [task_view(record, store) for record in records if record is not None]})


@blueprint.delete("/<task_id>")
def cancel_task(task_id: str) -> Response:
    check_query()
    return _task(api().services.store.cancel(task_id))


def _task(record: TaskRecord) -> Response:
    return json_response(task_view(record, api().services.store))
