"""/tasks: ask for a task, wait for it, cancel it."""

from __future__ import annotations

import math

from flask import Blueprint, Response, request

from api.context import api
from api.responses import json_response
from api.task_view import task_view
from inference.errors import InvalidRequest
from inference.messages import TaskRecord

blueprint = Blueprint("tasks", __name__, url_prefix="/tasks")


@blueprint.get("/<task_id>")
def get_task(task_id: str) -> Response:
    wait_s = _wait_s()
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
    return _task(api().services.store.cancel(task_id))


def _task(record: TaskRecord) -> Response:
    return json_response(task_view(record, api().services.store))


def _wait_s() -> float:
    text = request.args.get("wait")
    if text is None:
        return 0.0
    try:
        wait_s = float(text)
    except ValueError:
        wait_s = math.nan
    if not 0 <= wait_s < math.inf:
        raise InvalidRequest(f"wait is not a number of seconds: {text!r}", field="wait", expected="0 or more")
    return min(wait_s, api().services.settings.api.max_wait_s)
