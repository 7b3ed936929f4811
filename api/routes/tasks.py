"""Routes of tasks. /tasks: get a task and its image, wait for it, cancel it, run it again; list tasks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flask import Blueprint, Response, request

from api.acceptance.replay import read_replay
from api.components import components
from api.forms.predict import read_idempotency_key
from api.forms.preference import asked_wait_s
from api.forms.query import check_query
from api.forms.task_query import cursor_before, read_flag, read_task_query
from api.routes.erasures import erase_task
from api.routes.inference import accepted
from api.security.caller import caller
from api.security.task_access import task_access
from api.server.http_messages import holder_of
from api.views.image import image_response
from api.views.responses import json_response
from api.views.task import task_view, task_views
from api.views.urls import prefixed
from inference.domain import TaskRecord
from inference.errors import InvalidRequest

blueprint = Blueprint("tasks", __name__, url_prefix="/tasks")


@blueprint.get("/<task_id>")
def get_task(task_id: str) -> Response:
    """Return a task; with `wait`, after waiting for its end."""
    check_query({"wait"})
    wait_s = asked_wait_s(components().services.settings.api.max_wait_s)
    tasks = task_access()
    record = tasks.get(task_id)
    if wait_s and record.outcome is None:
        with components().replies.expect(task_id) as waiter:
            record = tasks.get(task_id)  # it may have ended before the waiter listened
            if record.outcome is None and waiter.wait(wait_s) is not None:
                record = tasks.get(task_id)
    return _task(record)


@blueprint.get("")
def list_tasks() -> Response:
    """Return a page of tasks, newest first."""
    query = read_task_query()
    store = components().services.store
    page = task_access().list_tasks(query.wanted, before=query.before, limit=query.limit)
    records = [record for record in store.get_many(page.task_ids) if record is not None]
    document: dict[str, Any] = {"tasks": task_views(records, store, with_vectors=query.prediction)}
    if page.next_before is None:
        return json_response(document)
    cursor = cursor_before(page.next_before)
    next_query = query.next_query(cursor)
    document |= {"next_cursor": cursor, "next": prefixed("/tasks") + next_query}
    return json_response(document, headers={"Link": f'<{next_query}>; rel="next"'})


@blueprint.delete("/<task_id>")
def cancel_task(task_id: str) -> Response:
    """Cancel a task that has not ended; with `erase`, remove everything of a task."""
    check_query({"erase"})
    if read_flag(request.args, "erase"):
        return erase_task(task_id)
    return _task(task_access().cancel(task_id))


@blueprint.get("/<task_id>/image")
def get_image(task_id: str) -> Response:
    """Return the image of a task as it was sent, while it is kept."""
    check_query()
    record = task_access().get(task_id)
    return image_response(record, components().images.read(record, holder_of(request.environ)))


@blueprint.post("/<task_id>/replay")
def replay_task(task_id: str) -> Response:
    """Run the image of a task that has ended again, as a new task of its owner."""
    check_query()
    if request.content_length or "Transfer-Encoding" in request.headers:
        raise InvalidRequest("a replay has no body", field="body", expected="no body: image and options are those of the task")
    record = task_access().get_for_change(task_id)
    form = read_replay(
        record,
        components().images,
        possible_sinks=components().services.settings.possible_sinks,
        idempotency_key=read_idempotency_key(request),
        hold=holder_of(request.environ),
    )
    submission = components().submissions.submit(form, replace(caller(), owner=record.owner))
    components().replies.forget(submission.waiter)
    components().submissions.confirm(submission, None)
    response = accepted(submission)
    response.headers["Task-Id"] = submission.task_id
    if submission.upload is None:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def _task(record: TaskRecord) -> Response:
    return json_response(task_view(record, components().services.store))
