"""Routes of single images. POST /inference: classify one image, synchronously or asynchronously."""

from __future__ import annotations

import time

from flask import Blueprint, Response, request

from api.acceptance.submission import Submission
from api.components import components
from api.forms.command import COMMAND_EXAMPLE, is_command
from api.forms.predict import read_predict_form
from api.forms.preference import EXPIRY_GRACE_S
from api.forms.query import check_query
from api.forms.sent_fields import SentFields, read_sent_fields
from api.routes.commands import run_command
from api.security.caller import caller
from api.views.identity import identity, sentence
from api.views.responses import json_response
from api.views.task import task_view
from api.views.urls import task_url
from inference.domain import Outcome
from inference.errors import InferenceError, ServiceUnavailable, WaitTimeout
from inference.lifecycle.task_object import result_object, timings_object

blueprint = Blueprint("inference", __name__)


@blueprint.get("/inference")
@blueprint.get("/inference_service")
def describe() -> Response:
    """Describe the service: in one sentence in `response`, as ROHE does, and in addition as data."""
    check_query()
    known = identity(components().services)
    return json_response({"response": sentence(known), **known})


@blueprint.post("/inference")
@blueprint.post("/inference_service")
def predict_or_command() -> Response:
    """Classify an image, or run the command in the field `command`: ROHE's clients send commands here too."""
    began = time.perf_counter()
    max_batch_items = components().services.settings.max_batch_items
    sent = read_sent_fields(request, json_example=COMMAND_EXAMPLE, max_batch_items=max_batch_items)
    if is_command(sent.get("command")):
        return run_command(sent)
    return _predict(sent, began)


def _predict(sent: SentFields, began: float) -> Response:
    form = read_predict_form(request, sent, max_wait_s=components().services.settings.api.max_wait_s)
    wait_s = form.preference.wait_s
    submission = components().submissions.submit(form, caller())
    with submission.waiter as waiter:
        if wait_s is None:
            outcome = waiter.wait(submission.deadline_s + EXPIRY_GRACE_S)
        else:
            outcome = waiter.wait(wait_s) if wait_s else None
    store_ms = components().submissions.confirm(submission, outcome)
    if outcome is None and wait_s is None:
        raise WaitTimeout("the result was not ready in time; the task continues", task_id=submission.task_id)
    with_vector = form.answer is None or form.answer.prediction
    response = (
        _result(submission, outcome, store_ms, began, with_vector=with_vector) if outcome is not None else accepted(submission)
    )
    response.headers["Task-Id"] = submission.task_id
    if form.preference.applied:
        response.headers["Preference-Applied"] = form.preference.applied
    if submission.upload is None:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def _result(submission: Submission, outcome: Outcome, store_ms: float, began: float, *, with_vector: bool) -> Response:
    if outcome.result is None:
        error = InferenceError.from_dict(outcome.error) if outcome.error else InferenceError("the task has no result")
        error.task_id = submission.task_id
        raise error
    document = {
        "response": result_object(outcome.result, with_vector=with_vector),
        "task_id": submission.task_id,
        "request_id": submission.request_id,
        "model": (outcome.model or submission.model).to_dict(),
    }
    timings = dict(timings_object(store_ms, outcome, submission.waiter.finished_at_ms))
    timings["total_ms"] = (time.perf_counter() - began) * 1000
    server_timing = ", ".join(f"{name.removesuffix('_ms')};dur={value:.1f}" for name, value in timings.items())
    return json_response(document, headers={"Server-Timing": server_timing})


def accepted(submission: Submission) -> Response:
    """The answer 202 with a task that goes on."""
    store = components().services.store
    try:
        task = task_view(store.get(submission.task_id), store)
    except ServiceUnavailable:  # the task store became unavailable after it had accepted the task
        task = task_view(submission.record(), None)
    return json_response(task, 202, headers={"Location": task_url(submission.task_id)})
