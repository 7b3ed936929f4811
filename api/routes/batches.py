"""Routes of batches. POST /inference/batch: classify many images; /batches: get a batch, wait for it, cancel it."""

from __future__ import annotations

import math
import time
from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, request

from api.acceptance.batch_submission import BatchSubmission
from api.components import components
from api.events.batch_subject import BatchSubject
from api.events.json_lines import JSON_LINES, ReplyLines, StoredLines, batch_lines
from api.events.streams import closed_on_error
from api.forms.batch import read_batch_form
from api.forms.event_query import wants_json_lines
from api.forms.preference import EXPIRY_GRACE_S, asked_wait_s
from api.forms.query import check_query
from api.security.caller import caller
from api.security.task_access import task_access
from api.views.batch import batch_view, ended_batch_view
from api.views.responses import json_response, streamed_response
from api.views.urls import batch_url
from inference.domain import BatchRecord, BatchRequest, TaskRecord
from inference.errors import ServiceUnavailable, TaskAlreadyFinished, WaitTimeout

blueprint = Blueprint("batches", __name__)


@blueprint.post("/inference/batch")
def predict_batch() -> Response:
    """Classify many images in one request."""
    began = time.perf_counter()
    settings = components().services.settings
    form = read_batch_form(request, max_items=settings.max_batch_items, max_wait_s=settings.api.max_wait_s)
    if wants_json_lines():
        components().events.check_room(caller().owner)  # before anything is accepted
        submission = components().batch_submissions.submit(form, caller())
        response = _lines_of(submission, form.preference.wait_s)
    else:
        submission = components().batch_submissions.submit(form, caller())
        response = _document_of(submission, form.preference.wait_s, began)
    response.headers["Batch-Id"] = submission.batch_id
    if form.preference.applied:
        response.headers["Preference-Applied"] = form.preference.applied
    if submission.batch is None:
        response.headers["Idempotent-Replayed"] = "true"
    return response


@blueprint.get("/batches/<batch_id>")
def get_batch(batch_id: str) -> Response:
    """Return a batch; with `wait`, after waiting for its end."""
    check_query({"wait"})
    wait_s = asked_wait_s(components().services.settings.api.max_wait_s)
    tasks, store = task_access(), components().services.store
    batch = tasks.get_batch(batch_id)
    if wants_json_lines():
        return _lines(batch, wait_s if "wait" in request.args else math.inf, ends_on_drain=True)
    if wait_s:
        with components().replies.expect_all(batch.task_ids) as waiter:
            waiter.take_ends(store.get_many(waiter.task_ids))  # tasks may have ended before the waiter listened
            waiter.wait_for_all(wait_s)
        batch = tasks.get_batch(batch_id)
    return json_response(batch_view(batch, store.get_many(batch.task_ids)))


@blueprint.delete("/batches/<batch_id>")
def cancel_batch(batch_id: str) -> Response:
    """Cancel the tasks of a batch that have not ended."""
    batch = task_access().get_batch_for_change(batch_id)
    check_query()
    store = components().services.store
    if not any(store.cancel_many(batch.task_ids)):
        raise TaskAlreadyFinished("every task of the batch has ended already", batch_id=batch_id)
    return json_response(batch_view(batch, store.get_many(batch.task_ids)))


def _document_of(submission: BatchSubmission, wait_s: float | None, began: float) -> Response:
    with submission.waiter as waiter:
        has_ended = waiter.wait_for_all(_longest_s(submission, wait_s))
    components().batch_submissions.confirm(submission)
    if not has_ended and wait_s is None:
        raise WaitTimeout("not every result was ready in time; the batch continues", batch_id=submission.batch_id)
    return _ended(submission, began) if has_ended and wait_s != 0 else _accepted(submission)


def _lines_of(submission: BatchSubmission, wait_s: float | None) -> Response:
    batch, timeout_s = submission.batch, _longest_s(submission, wait_s)
    try:
        response = _new_lines(submission, batch, timeout_s) if batch else _known_lines(submission, timeout_s)
    except ServiceUnavailable as error:
        error.batch_id = submission.batch_id
        raise
    if wait_s == 0:
        response.status_code = HTTPStatus.ACCEPTED
        response.headers["Location"] = batch_url(submission.batch_id)
    return response


def _new_lines(submission: BatchSubmission, batch: BatchRequest, timeout_s: float) -> Response:
    """A batch that this request has begun, as JSON Lines: the replies to this process have its items."""
    with closed_on_error(submission.waiter):
        components().batch_submissions.confirm(submission)
        stream = components().events.open_for(submission.waiter, caller().owner)
    with closed_on_error(stream):
        lines = ReplyLines(batch, submission.waiter, components().services.store)
        return streamed_response(stream, batch_lines(stream, lines, timeout_s), JSON_LINES)


def _known_lines(submission: BatchSubmission, timeout_s: float) -> Response:
    submission.waiter.close()
    return _lines(components().services.store.get_batch(submission.batch_id), timeout_s, ends_on_drain=False)


def _longest_s(submission: BatchSubmission, wait_s: float | None) -> float:
    return submission.deadline_s + EXPIRY_GRACE_S if wait_s is None else wait_s


def _lines(batch: BatchRecord, timeout_s: float, *, ends_on_drain: bool) -> Response:
    """The batch as JSON Lines, its items as they end, for `timeout_s` at most."""
    store, hub = components().services.store, components().events
    key = BatchSubject.key_of(batch.batch_id)
    stream, subject = hub.open(lambda: BatchSubject(batch), key, owner=caller().owner, ends_on_drain=ends_on_drain)
    with closed_on_error(stream):
        hub.load(subject)
        return streamed_response(stream, batch_lines(stream, StoredLines(subject, store), timeout_s), JSON_LINES)


def _ended(submission: BatchSubmission, began: float) -> Response:
    batch, ended = submission.batch, submission.waiter.ended
    try:
        document = ended_batch_view(batch, ended) if batch is not None else _stored(submission.batch_id)
    except ServiceUnavailable as error:
        error.batch_id = submission.batch_id
        raise
    total_ms = (time.perf_counter() - began) * 1000
    return json_response(document, headers={"Server-Timing": f"total;dur={total_ms:.1f}"})


def _accepted(submission: BatchSubmission) -> Response:
    location = {"Location": batch_url(submission.batch_id)}
    try:
        document = _stored(submission.batch_id)
    except ServiceUnavailable as error:  # the task store became unavailable after it had accepted the batch
        if submission.batch is None:
            error.batch_id = submission.batch_id
            raise
        document = batch_view(submission.batch.record, [TaskRecord.of_request(task) for task in submission.batch.tasks])
    return json_response(document, HTTPStatus.ACCEPTED, headers=location)


def _stored(batch_id: str) -> dict[str, Any]:
    store = components().services.store
    batch = store.get_batch(batch_id)
    return batch_view(batch, store.get_many(batch.task_ids))
