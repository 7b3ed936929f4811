"""Answer to an inference: a JSON object, and after it the binary data of outputs."""

from __future__ import annotations

from typing import Any

import orjson
from flask import Response, request

from api.acceptance.batch_submission import BatchSubmission
from api.v2.body import HEADER_LENGTH
from api.v2.compression import chosen_encoding, deflate
from api.v2.inference import Inference
from api.v2.outputs import write_outputs
from inference.domain import ModelRef, PredictionResult
from inference.errors import InferenceError
from inference.models.spec import ModelSpec


def infer_response(sent: Inference, spec: ModelSpec, model: ModelRef, submission: BatchSubmission) -> Response:
    """Respond with the results of a batch of which every task has ended.

    Args:
        model: the version that was served when the batch was accepted.

    Raises:
        InferenceError: a task has no result; the error is that of the first such task.
        ServiceUnavailable: the model was replaced meanwhile, by one with another number of classes.
    """
    results, versions = _results(submission)
    tensors, binary = write_outputs(sent.outputs, results, spec.labels)
    document = {
        "model_name": spec.name,
        "model_version": ",".join(versions) or model.version,
        **({"id": sent.id} if sent.id else {}),
        "parameters": {"batch_id": submission.batch_id, "task_ids": ",".join(submission.waiter.task_ids)},
        "outputs": tensors,
    }
    response = _response(orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY), binary)
    response.headers["Batch-Id"] = submission.batch_id
    return response


def _results(submission: BatchSubmission) -> tuple[list[PredictionResult], list[str]]:
    """Return the results in order, and the versions of the model that produced them."""
    results: list[PredictionResult] = []
    versions: dict[str, None] = {}
    for task_id in submission.waiter.task_ids:
        outcome = submission.waiter.ended[task_id].outcome
        if outcome.result is None:
            raise _failure(outcome.error, len(results), task_id, submission.batch_id)
        results.append(outcome.result)
        if outcome.model is not None:
            versions[outcome.model.version] = None
    return results, list(versions)


def _failure(error: dict[str, Any] | None, number: int, task_id: str, batch_id: str) -> InferenceError:
    """Create the error of a request of which an image has failed: the protocol has no answer with some of the results."""
    failure = InferenceError.from_dict(error) if error else InferenceError("the task has no result")
    failure.add_prefix(f"image {number} (the results of all are at /batches/{batch_id})")
    failure.task_id = task_id
    return failure


def _response(document: bytes, binary: list[bytes]) -> Response:
    """Respond with the JSON object and the binary data; compressed if the request allows it, and if it is long."""
    response = Response(mimetype="application/octet-stream" if binary else "application/json")
    response.headers["Vary"] = "Accept-Encoding"
    if binary:
        response.headers[HEADER_LENGTH] = str(len(document))
    body = b"".join((document, *binary))
    encoding = chosen_encoding(request.accept_encodings, len(body))
    if encoding is not None:
        response.headers["Content-Encoding"] = encoding
        body = deflate(body, encoding)
    response.set_data(body)
    return response
