"""Tree of all errors that the service raises on purpose.

    request ──parse──▶ validate ──admit──▶ store ──▶ queue ──▶ decode ──▶ predict ──▶ commit
               │          │          │        │                   │           │
               400      400/413/415  429     503                 400         500

Each class maps to one HTTP status and one stable `code`. An error crosses a process boundary only as data
(`to_dict` / `from_dict`), never as a pickled exception.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from itertools import accumulate, islice
from typing import Any, ClassVar

from inference.access import OwnerUse

_SHOWN_LENGTH = 80
_MAX_SHOWN_INTEGER = 10**30

#: Limits of the members of an error, bytes in JSON: with `type`, `title` and the ids no problem document is over 4 KB.
_MAX_DETAIL_BYTES = 1500
_MAX_EXPECTED_BYTES = 900
_MAX_FIELD_BYTES = 200
_MAX_ID_BYTES = 200
_MAX_WORKERS_BYTES = 800
_MAX_WORKER_BYTES = 250
#: reserved for the member that counts the workers for which there is no room
_WORKER_COUNT_BYTES = 50
#: longest form of one character in JSON: an escaped control character
_MAX_CHARACTER_BYTES = 6
_CUT = "…"


class _ShortRepr(reprlib.Repr):
    """`repr` that reads only the part of a value that it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = 5

    def repr_str(self, x: str, level: int) -> str:  # noqa: ARG002 reprlib's signature
        return _cut(repr(x[: _SHOWN_LENGTH + 1]), _SHOWN_LENGTH)

    repr_bytes = repr_str

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        """Keep the order of the members; the library's own method sorts all of them first."""
        if level <= 0 and x:
            return "{...}"
        pieces = [
            f"{self.repr1(name, level - 1)}: {self.repr1(value, level - 1)}" for name, value in islice(x.items(), self.maxdict)
        ]
        return "{" + ", ".join(pieces + ["..."] * (len(x) > self.maxdict)) + "}"

    def repr_int(self, x: int, level: int) -> str:  # noqa: ARG002 reprlib's signature
        """Show a large integer by its size, since Python refuses to print integers of thousands of digits."""
        return repr(x) if abs(x) < _MAX_SHOWN_INTEGER else f"a whole number of {x.bit_length()} bits"


_SHORT = _ShortRepr()


def shown(value: object) -> str:
    """Quote a value that a client sent: at most about 80 characters, and none that a terminal or a log would interpret."""
    return _cut(_SHORT.repr(value), _SHOWN_LENGTH)


def shown_name(name: str) -> str:
    """Return a field's name that a client sent: unchanged if it is short and printable, else quoted as `shown` does."""
    return name if name.isprintable() and 0 < len(name) <= _SHOWN_LENGTH else shown(name)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[:length] + _CUT


def _bounded(text: str, max_bytes: int) -> str:
    """Cut a text to `max_bytes` in JSON. Lone surrogates, which valid JSON cannot contain, become question marks."""
    if text.isascii() and len(text) * _MAX_CHARACTER_BYTES <= max_bytes:
        return text
    kept = text[: max_bytes + 1].encode("utf-8", "replace").decode()
    if len(kept) == len(text) and _json_bytes(kept) <= max_bytes:
        return kept
    while _json_bytes(kept) > max_bytes - len(_CUT.encode()):
        kept = kept[: len(kept) * 3 // 4]
    return kept + _CUT


def _json_bytes(text: str) -> int:
    """Return the size of the text in a JSON document, quotes included."""
    return len(json.dumps(text, ensure_ascii=False).encode())


def _bounded_workers(workers: Mapping[str, str]) -> dict[str, str]:
    """Keep as many workers as have room, each with a short reason; the last member counts the others."""
    bounded = {_bounded(worker, _MAX_WORKER_BYTES): _bounded(reason, _MAX_WORKER_BYTES) for worker, reason in workers.items()}
    sizes = [_json_bytes(worker) + _json_bytes(reason) for worker, reason in bounded.items()]
    if sum(sizes) <= _MAX_WORKERS_BYTES:
        return bounded
    count = sum(1 for total in accumulate(sizes) if total <= _MAX_WORKERS_BYTES - _WORKER_COUNT_BYTES)
    return dict(islice(bounded.items(), count)) | {_CUT: f"{len(bounded) - count} more workers"}


class InferenceError(Exception):
    """Base of every error this service raises on purpose.

    Args:
        detail: one sentence that describes the problem, for the log and for operators.
        public: the same for clients, if `detail` names internal addresses, paths or buckets; default: `detail`.
        field: the place of the problem, as a dotted path of the request or the configuration, e.g. ``metadata.shape``.
        expected: description of a valid value.
        retry_after_s: seconds after which a retry makes sense.
        workers: by worker, its reply to a command that failed.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        public: str | None = None,
        field: str | None = None,
        expected: str | None = None,
        retry_after_s: float | None = None,
        task_id: str | None = None,
        workers: dict[str, str] | None = None,
        batch_id: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.public = detail if public is None else public
        self.field = field
        self.expected = expected
        self.retry_after_s = retry_after_s
        self.task_id = task_id
        self.workers = workers
        self.batch_id = batch_id

    def add_prefix(self, text: str) -> None:
        """Put `text` and a colon before the detail and the public detail."""
        self.detail, self.public = f"{text}: {self.detail}", f"{text}: {self.public}"

    def to_dict(self) -> dict[str, Any]:
        """Return the error for clients: code, detail (`public`) and, if known, field, expected, retry_after_s, ids, workers.

        Each member has a maximum length, so that the size of problem documents, records and batch answers does not depend on the
        client's input.
        """
        texts = {
            "field": (self.field, _MAX_FIELD_BYTES),
            "expected": (self.expected, _MAX_EXPECTED_BYTES),
            "task_id": (self.task_id, _MAX_ID_BYTES),
            "batch_id": (self.batch_id, _MAX_ID_BYTES),
        }
        data: dict[str, Any] = {"code": self.code, "detail": _bounded(self.public, _MAX_DETAIL_BYTES)}
        data |= {name: _bounded(text, max_bytes) for name, (text, max_bytes) in texts.items() if text is not None}
        if self.retry_after_s is not None:
            data["retry_after_s"] = self.retry_after_s
        if self.workers is not None:
            data["workers"] = _bounded_workers(self.workers)
        return data

    def to_problem(self) -> dict[str, Any]:
        """Return `to_dict` with the members `type`, `title` and `status` of RFC 9457."""
        kind = {"type": f"urn:problem-type:inference:{self.code}", "title": self.title, "status": self.status}
        return kind | self.to_dict()

    @staticmethod
    def from_dict(data: dict[str, Any]) -> InferenceError:
        """Rebuild an error from `to_dict`; an unknown code becomes a plain `InferenceError`."""
        kind = ERRORS_BY_CODE.get(data["code"], InferenceError)
        return kind(
            data["detail"],
            field=data.get("field"),
            expected=data.get("expected"),
            retry_after_s=data.get("retry_after_s"),
            task_id=data.get("task_id"),
            workers=data.get("workers"),
            batch_id=data.get("batch_id"),
        )


class InvalidRequest(InferenceError):
    """A part of the request is missing or wrong."""

    status, code, title = 400, "invalid_request", "Invalid request"


class InvalidMetadata(InvalidRequest):
    """`metadata` is not a JSON object, or one of its members is wrong."""

    code, title = "invalid_metadata", "Invalid metadata"


class InvalidImage(InvalidRequest):
    """The image does not decode, or does not fit the model."""

    code, title = "invalid_image", "Invalid image"


class InvalidModel(InvalidRequest):
    """The files that a command names are not a model, or do not fit the description."""

    code, title = "invalid_model", "The model cannot be loaded"


class UnknownCommand(InvalidRequest):
    code, title = "unknown_command", "Unknown command"


class ConfigurationError(InferenceError):
    """A setting, a model description or a file that they name is wrong. Ends the process that finds it."""

    code, title = "invalid_configuration", "Invalid configuration"


class CrossOrigin(InferenceError):
    """A web page of another origin made a browser send a request that would change data."""

    status, code, title = 403, "cross_origin", "Refused to a page of another origin"


class Unauthenticated(InferenceError):
    """A request has no key, or none that is valid."""

    status, code, title = 401, "unauthenticated", "A valid key is needed"


class Forbidden(InferenceError):
    """The caller's key, or the service's configuration, does not allow the request."""

    status, code, title = 403, "forbidden", "Not allowed"


class RateLimited(InferenceError):
    """An owner sends more requests a second than its limit, or an address too many keys that are not valid."""

    status, code, title = 429, "rate_limited", "Too many requests"
    #: use of the owner; None in an error from another process
    use: OwnerUse | None = None


class QuotaExceeded(InferenceError):
    """An owner has used up its images or bytes of the day, or has too many tasks that have not ended."""

    status, code, title = 429, "quota_exceeded", "The quota is used up"
    #: as of `RateLimited`
    use: OwnerUse | None = None


class TaskNotFound(InferenceError):
    status, code, title = 404, "task_not_found", "Unknown task"


class BatchNotFound(InferenceError):
    status, code, title = 404, "batch_not_found", "Unknown batch"


class ErasureNotFound(InferenceError):
    status, code, title = 404, "erasure_not_found", "Unknown erasure"


class NotFound(InferenceError):
    status, code, title = 404, "not_found", "Not found"


class MethodNotAllowed(InferenceError):
    status, code, title = 405, "method_not_allowed", "Method not allowed"


class ModelNotFound(InferenceError):
    status, code, title = 404, "model_not_found", "Unknown model"


class ObjectNotFound(InferenceError):
    """An object of the object store, or a model's file, is missing."""

    status, code, title = 404, "object_not_found", "Unknown object"


class RequestTimeout(InferenceError):
    """The client took too long to send a request's header or body."""

    status, code, title = 408, "request_timeout", "The request came too slowly"


class ImageNotFound(InferenceError):
    """The image of a task is no longer kept, or was never sent to this service."""

    status, code, title = 404, "image_not_found", "The image is not kept"


class ImageGone(InferenceError):
    """A task cannot be run again without its image."""

    status, code, title = 410, "image_gone", "The image is gone"


class TaskNotFinished(InferenceError):
    status, code, title = 409, "task_not_finished", "The task has not ended"


class TaskAlreadyFinished(InferenceError):
    status, code, title = 409, "task_already_finished", "The task has already ended"


class TaskCanceled(InferenceError):
    status, code, title = 409, "task_canceled", "The task was canceled"


class ChangeInProgress(InferenceError):
    """Another command changes a model; these commands run one after the other."""

    status, code, title = 409, "change_in_progress", "A model is being changed"


class SinkNotConfigured(InferenceError):
    """No relay delivers results to the sink that a command chooses."""

    status, code, title = 409, "sink_not_configured", "The sink is not configured"


class IdempotencyConflict(InferenceError):
    status, code, title = 409, "idempotency_conflict", "The idempotency key was used with other content"


class PayloadTooLarge(InferenceError):
    status, code, title = 413, "payload_too_large", "Payload too large"


class UriTooLong(InferenceError):
    status, code, title = 414, "uri_too_long", "URI too long"


class UnsupportedContentEncoding(InferenceError):
    """The body, or a part of it, is compressed or encoded."""

    status, code, title = 415, "unsupported_content_encoding", "Unsupported content encoding"


class UnsupportedImageType(InferenceError):
    status, code, title = 415, "unsupported_image_type", "Unsupported image type"


class ExpectationFailed(InferenceError):
    """The header Expect has a value other than 100-continue."""

    status, code, title = 417, "expectation_failed", "Expectation failed"


class Overloaded(InferenceError):
    status, code, title = 429, "overloaded", "Too many requests are waiting"


class MisdirectedRequest(InferenceError):
    """The request names a host that is not one of this service's."""

    status, code, title = 421, "misdirected_request", "Misdirected request"


class HeaderFieldsTooLarge(InferenceError):
    """The header fields of a request are too many or too long."""

    status, code, title = 431, "header_fields_too_large", "Header fields too large"


class PredictionFailed(InferenceError):
    """The model raised an error, or did not return one prediction for each image."""

    code, title = "prediction_failed", "The prediction failed"


class PredictorDied(InferenceError):
    """The process that ran the model ended, or hung, in every attempt. The input is kept as a dead letter."""

    code, title = "predictor_died", "The predictor died"


class UploadLost(InferenceError):
    """The image of an accepted task is missing in the object store."""

    code, title = "upload_lost", "The upload was lost"


class TransferCodingNotImplemented(InferenceError):
    """A request's body has a transfer coding other than chunked."""

    status, code, title = 501, "not_implemented", "Not implemented"


class ServiceUnavailable(InferenceError):
    """A store, the queue or the model is not available at the moment."""

    status, code, title = 503, "service_unavailable", "Service unavailable"
    #: whether the server answered that it cannot write now, and changed nothing
    is_refusal = False


class StorageFull(ServiceUnavailable):
    """A disk, a bucket or the task store has too little room for another request."""

    code, title = "storage_full", "No room is left"


class DeadlineExceeded(InferenceError):
    """The task's deadline passed before it had a result."""

    status, code, title = 504, "deadline_exceeded", "The deadline has passed"


class WaitTimeout(InferenceError):
    """The wait of a synchronous request is over; the task continues."""

    status, code, title = 504, "wait_timeout", "The result was not ready in time"


def _tree(kind: type[InferenceError]) -> list[type[InferenceError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _tree(child))]


ERRORS_BY_CODE: dict[str, type[InferenceError]] = {kind.code: kind for kind in _tree(InferenceError)}
