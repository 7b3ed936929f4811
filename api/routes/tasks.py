"""Routes of tasks. /tasks: get a task, wait for it, cancel it; list tasks."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from api.components import components
from api.forms.preference import asked_wait_s
from api.forms.query import check_query
from api.forms.task_query import cursor_before, read_task_query
from api.views.responses import json_response
from api.views.task import task_view, task_views
from api.views.urls import prefixed
from inference.domain import TaskRecord

blueprint = Blueprint("tasks", __name__, url_prefix="/tasks")


@blueprint.get("/<task_id>")
def get_task(task_id: str) -> Response:
    """Return a task; with `wait`, after waiting for its end."""
    check_query({"wait"})
    wait_s = asked_wait_s(components().services.settings.api.max_wait_s)
    record = components().services.store.get(task_id)
    if wait_s and record.outcome is None:
        with components().replies.expect(task_id) as waiter:
            record = components().services.store.get(task_id)  # it may have ended before the waiter listened
            if record.outcome is None and waiter.wait(wait_s) is not None:
                record = components().services.store.get(task_id)
    return _task(record)


@blueprint.get("")
def list_tasks() -> Response:
    """Return a page of tasks, newest first."""
    query = read_task_query()
    store = components().services.store
    page = store.list_tasks(query.wanted, before=query.before, limit=query.limit)
    records = [record for record in store.get_many(page.task_ids) if record is not None]
    document: dict[str, Any] = {"tasks": task_views(records, store, with_vectors=query.vectors)}
    if page.next_before is None:
        return json_response(document)
    cursor = cursor_before(page.next_before)
    next_query = query.next_query(cursor)
    document |= {"next_cursor": cursor, "next": prefixed("/tasks") + next_query}
    return json_response(document, headers={"Link": f'<{next_query}>; rel="next"'})


@blueprint.delete("/<task_id>")
def cancel_task(task_id: str) -> Response:
    """Cancel a task that has not ended."""
    check_query()
    return _task(components().services.store.cancel(task_id))


def _task(record: TaskRecord) -> Response:
    return json_response(task_view(record, components().services.store))
