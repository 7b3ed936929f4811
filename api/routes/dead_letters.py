"""Routes of dead letters: the tasks that were given up, and the results that a sink refused."""

from __future__ import annotations

from http import HTTPStatus

from flask import Blueprint, Response, request

from api.components import components
from api.forms.query import check_query
from api.forms.task_query import read_limit
from api.security.request_audit import audited
from api.security.task_access import task_access
from api.views.responses import json_response
from api.views.task import task_view, task_views
from api.views.urls import task_url
from inference.errors import InvalidRequest
from inference.lifecycle.dead_letters import DeadLetters
from inference.rollout.runtime_config import chosen_sinks

blueprint = Blueprint("dead_letters", __name__, url_prefix="/dead-letters")


@blueprint.get("")
def list_dead_letters() -> Response:
    """Return the oldest dead letters, and how many there are."""
    check_query({"limit"})
    store = components().services.store
    records = list(_dead_letters().list(read_limit(request.args)))
    tasks = task_views(records, store, with_vectors=False)
    return json_response({"tasks": tasks, "count": store.count_dead_letters()})


@blueprint.post("/<task_id>/replay")
def replay_dead_letter(task_id: str) -> Response:
    """Give a refused result to its sink again, or run the image again as a new task; the dead letter is one no more."""
    check_query()
    if request.content_length or "Transfer-Encoding" in request.headers:
        raise InvalidRequest("a replay has no body", field="body", expected="no body: image and options are those of the task")
    services = components().services
    with audited("dead_letter.replay", task_id) as line:
        task_access().get_for_change(task_id)
        sinks = chosen_sinks(services.settings, services.desired.read())
        next_id = _dead_letters().replay(task_id, deadline_s=services.settings.deadlines.async_s, sinks=sinks)
        line["next"] = next_id
    task = task_view(services.store.get(next_id), services.store)
    return json_response(task, HTTPStatus.ACCEPTED, headers={"Location": task_url(next_id), "Task-Id": next_id})


@blueprint.delete("/<task_id>")
def discard_dead_letter(task_id: str) -> Response:
    """Give up a dead letter: its image is deleted, and a sink that refused the result does not get it."""
    check_query()
    services = components().services
    with audited("dead_letter.discard", task_id):
        task_access().get_for_change(task_id)
        _dead_letters().discard(task_id)
    return json_response(task_view(services.store.get(task_id), services.store))


def _dead_letters() -> DeadLetters:
    services = components().services
    return DeadLetters(services.store, services.objects, services.broker)
