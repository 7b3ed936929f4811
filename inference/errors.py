"""The one error tree.

    request ──parse──▶ validate ──admit──▶ store ──▶ queue ──▶ decode ──▶ predict ──▶ commit
               │          │          │        │                   │           │
               400      400/413/415  429     503                 400         500

Each class maps to one HTTP status and one stable `code`. An error crosses a process only as data
(`to_dict` / `from_dict`), never as a pickled exception.
"""

from __future__ import annotations

from typing import Any, ClassVar

_SHOWN_LENGTH = 100


def shown(value: object) -> str:
    """What a caller sent, for an error that repeats it: quoted, and not by the megabyte."""
    text = repr(value)
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}…"


class InferenceError(Exception):
    """Base of every error this service raises on purpose.

    Args:
        detail: one sentence that says what was wrong.
        field: where, as a dotted path of the request or the configuration, e.g. ``metadata.shape``.
        expected: what would be right.
        retry_after_s: seconds after which trying again makes sense.
        workers: by worker, what each did about a command that failed.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        field: str | None = None,
        expected: str | None = None,
        retry_after_s: float | None = None,
        task_id: str | None = None,
        workers: dict[str, str] | None = None,
        batch_id: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.expected = expected
        self.retry_after_s = retry_after_s
        self.task_id = task_id
        self.workers = workers
        self.batch_id = batch_id

    def to_dict(self) -> dict[str, Any]:
        """The error as plain data: code, detail and, where known, field, expected, retry_after_s, task_id, batch_id, workers."""
        optional = {
            "field": self.field,
            "expected": self.expected,
            "retry_after_s": self.retry_after_s,
            "task_id": self.task_id,
            "workers": self.workers,
            "batch_id": self.batch_id,
        }
        return {"code": self.code, "detail": self.detail} | {k: v for k, v in optional.items() if v is not None}

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
    """Something the caller sent is missing or wrong."""

    status, code, title = 400, "invalid_request", "Invalid request"


class InvalidMetadata(InvalidRequest):
    """`metadata` is not the JSON object it should be, or one of its members is wrong."""

    code, title = "invalid_metadata", "Invalid metadata"


class InvalidImage(InvalidRequest):
    """The image does not decode, or does not fit the model."""

    code, title = "invalid_image", "Invalid image"


class InvalidModel(InvalidRequest):
    """The files that a command names are no model, or none that fits the description."""

    code, title = "invalid_model", "The model cannot be loaded"


class UnknownCommand(InvalidRequest):
    code, title = "unknown_command", "Unknown command"


class ConfigurationError(InferenceError):
    """A setting, a model description or a file they name is wrong. Ends the process that finds it."""

    code, title = "invalid_configuration", "Invalid configuration"


class TaskNotFound(InferenceError):
    status, code, title = 404, "task_not_found", "Unknown task"


class BatchNotFound(InferenceError):
    status, code, title = 404, "batch_not_found", "Unknown batch"


class NotFound(InferenceError):
    status, code, title = 404, "not_found", "Not found"


class MethodNotAllowed(InferenceError):
    status, code, title = 405, "method_not_allowed", "Method not allowed"


class ModelNotFound(InferenceError):
    status, code, title = 404, "model_not_found", "Unknown model"


class ObjectNotFound(InferenceError):
    """An object that should be in the object store, or a model's file, is not there."""

    status, code, title = 404, "object_not_found", "Unknown object"


class RequestTimeout(InferenceError):
    """The client took too long to send a request's head."""

    status, code, title = 408, "request_timeout", "The request came too slowly"


class TaskAlreadyFinished(InferenceError):
    status, code, title = 409, "task_already_finished", "The task has already ended"


class TaskCanceled(InferenceError):
    status, code, title = 409, "task_canceled", "The task was canceled"


class ChangeInProgress(InferenceError):
    """Commands that change a model go one after the other."""

    status, code, title = 409, "change_in_progress", "A model is being changed"


class SinkNotConfigured(InferenceError):
    """Nothing delivers results to the sink that a command chooses."""

    status, code, title = 409, "sink_not_configured", "The sink is not configured"


class IdempotencyConflict(InferenceError):
    status, code, title = 409, "idempotency_conflict", "The idempotency key was used with other content"


class PayloadTooLarge(InferenceError):
    status, code, title = 413, "payload_too_large", "Payload too large"


class UriTooLong(InferenceError):
    status, code, title = 414, "uri_too_long", "URI too long"


class UnsupportedImageType(InferenceError):
    status, code, title = 415, "unsupported_image_type", "Unsupported image type"


class ExpectationFailed(InferenceError):
    """The header Expect asks for something other than 100-continue."""

    status, code, title = 417, "expectation_failed", "Expectation failed"


class Overloaded(InferenceError):
    status, code, title = 429, "overloaded", "Too many requests are waiting"


class HeaderFieldsTooLarge(InferenceError):
    """The header fields of a request are too many or too long."""

    status, code, title = 431, "header_fields_too_large", "Header fields too large"


class PredictionFailed(InferenceError):
    """The model raised, or answered with something that is not one prediction per image."""

    code, title = "prediction_failed", "The prediction failed"


class PredictorDied(InferenceError):
    """The process that ran the model ended, or hung, in every attempt. The input is kept as a dead letter."""

    code, title = "predictor_died", "The predictor died"


class UploadLost(InferenceError):
    """The image that a task was accepted with is gone from the object store."""

    code, title = "upload_lost", "The upload was lost"


class TransferCodingNotImplemented(InferenceError):
    """A request's body comes in a transfer coding other than chunked."""

    status, code, title = 501, "not_implemented", "Not implemented"


class ServiceUnavailable(InferenceError):
    """A store, the queue or the model is not there at the moment."""

    status, code, title = 503, "service_unavailable", "Service unavailable"


class DeadlineExceeded(InferenceError):
    """The task's deadline passed before it had a result."""

    status, code, title = 504, "deadline_exceeded", "The deadline has passed"


class WaitTimeout(InferenceError):
    """A synchronous wait ran out; the task goes on."""

    status, code, title = 504, "wait_timeout", "The result was not ready in time"


def _tree(kind: type[InferenceError]) -> list[type[InferenceError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _tree(child))]


ERRORS_BY_CODE: dict[str, type[InferenceError]] = {kind.code: kind for kind in _tree(InferenceError)}
