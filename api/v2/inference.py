"""Request for an inference: read as a batch request, whose items are the images of the input tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from flask import Request

from api.forms.batch import BatchForm, BatchItem, fingerprint_of
from api.forms.json_image import SentImage
from api.forms.options import read_deadline_s
from api.forms.predict import idempotency_digest, read_idempotency_key
from api.forms.preference import Preference
from api.v2.body import read_body
from api.v2.outputs import Output, read_outputs
from api.v2.protocol import InferParameters, InferRequest, read_document
from api.v2.tensors import read_images
from inference.broker import HIGHEST_PRIORITY, USUAL_PRIORITY
from inference.errors import InvalidRequest
from inference.ids import read_request_id
from inference.models.spec import ModelSpec

_MICROSECONDS = 1_000_000


@dataclass(frozen=True)
class Inference:
    """Request for an inference as it was sent."""

    id: str
    form: BatchForm
    outputs: tuple[Output, ...]


def read_inference(request: Request, spec: ModelSpec, *, max_images: int) -> Inference:
    """Read a request for an inference of a model; all images are accepted together, or none.

    Raises:
        InferenceError: the body is not a valid request, or exceeds a limit; see `read_body` and `read_images`.
    """
    document, binary = read_body(request)
    sent = read_document(InferRequest, document)
    parameters = sent.parameters or InferParameters()
    if parameters.sequence_id is not None:
        raise InvalidRequest("models here have no state, and so no sequences", expected="no sequence_id")
    outputs = read_outputs(sent.outputs, spec, is_binary=bool(parameters.binary_data_output))
    images = read_images(sent.inputs[0], binary, max_images=max_images)
    options = _options(sent, parameters, spec)
    if images.shape is not None:
        options |= {"shape": images.shape, "dtype": images.dtype}
    items = tuple(BatchItem(options, SentImage(content)) for content in images.contents)
    key = _idempotency_key(request, sent, parameters)
    fingerprint = fingerprint_of(items) if key else ""
    return Inference(sent.id or "", BatchForm(items, Preference(), key, fingerprint, is_all_or_none=True), outputs)


def _options(sent: InferRequest, parameters: InferParameters, spec: ModelSpec) -> dict[str, Any]:
    """Return the options of every image, as they are in the metadata of a batch."""
    return {
        "model": spec.name,
        "request_id": read_request_id(sent.id, field="id"),
        "deadline_s": _deadline_s(parameters),
        "priority": _priority(parameters.priority or 0),
        "sinks": parameters.sinks,
    }


def _deadline_s(parameters: InferParameters) -> float | None:
    timeout_s = parameters.timeout / _MICROSECONDS if parameters.timeout else None
    if timeout_s is None:
        return read_deadline_s(parameters.deadline_s)
    if parameters.deadline_s is not None and not math.isclose(parameters.deadline_s, timeout_s):
        raise InvalidRequest("timeout and deadline_s are both given", expected="one of the two")
    return timeout_s


def _priority(sent: int) -> int:
    """Convert a priority of the protocol, where 1 goes first and 0 is usual, to one of this service, where 9 goes first."""
    return HIGHEST_PRIORITY + 1 - sent if 1 <= sent <= HIGHEST_PRIORITY else USUAL_PRIORITY


def _idempotency_key(request: Request, sent: InferRequest, parameters: InferParameters) -> str:
    """Return the digest of the idempotency key: that of the header, or the id. Raises InvalidRequest."""
    key = read_idempotency_key(request)
    if not parameters.idempotent:
        return key
    if not sent.id:
        raise InvalidRequest("the request is idempotent, and has no id", field="id", expected="an id, unique for each content")
    of_id = idempotency_digest(sent.id)
    if key not in ("", of_id):
        raise InvalidRequest("the header Idempotency-Key is not the id", field="Idempotency-Key", expected="one of the two")
    return of_id
