"""Routes of batches. POST /inference/batch: classify many images; /batches: get a batch, wait for it, cancel it."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, request

from api.acceptance.batch_submission import BatchSubmission
from api.components import components
from api.forms.batch import read_batch_form
from api.forms.preference import EXPIRY_GRACE_S, asked_wait_s
from api.forms.query import check_query
from api.views.batch import batch_view, ended_batch_view
from api.views.responses import json_response
from api.views.urls import batch_url
from inference.domain import TaskRecord
from inference.errors import ServiceUnavailable, TaskAlreadyFinished, WaitTimeout

blueprint = Blueprint("batches", __name__)


@blueprint.post("/inference/batch")
def predict_batch() -> Response:
    """Classify many images in one request."""
    began = time.perf_counter()
    settings = components().services.settings
    form = read_batch_form(request, max_items=settings.max_batch_items, max_wait_s=settings.api.max_wait_s)
    wait_s = form.preference.wait_s
    submission = components().batch_submissions.submit(form)
    with submission.waiter as waiter:
        longest_s = submission.deadline_s + EXPIRY_GRACE_S if wait_s is None else wait_s
        has_ended = waiter.wait_for_all(longest_s)
    components().batch_submissions.confirm(submission)
    if not has_ended and wait_s is None:
        raise WaitTimeout("not every result was ready in time; the batch continues", batch_id=submission.batch_id)
    response = _ended(submission, began) if has_ended and wait_s != 0 else _accepted(submission)
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
    store = components().services.store
    if wait_s:
        with components().replies.expect_all(store.get_batch(batch_id).task_ids) as waiter:
            waiter.look(store.get_many(waiter.task_ids))  # tasks may have ended before the waiter listened
            waiter.wait_for_all(wait_s)
    return json_response(_stored(batch_id))


@blueprint.delete("/batches/<batch_id>")
def cancel_batch(batch_id: str) -> Response:
    """Cancel the tasks of a batch that have not ended."""
    store = components().services.store
    task_ids = store.get_batch(batch_id).task_ids
    check_query()
    if not any(store.cancel_many(task_ids)):
        raise TaskAlreadyFinished("every task of the batch has ended already", batch_id=batch_id)
    return json_response(_stored(batch_id))


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
