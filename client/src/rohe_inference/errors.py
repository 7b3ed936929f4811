"""Errors of the client.

InferenceError
  ConnectionFailed        no answer: refused, reset, timed out
  UnexpectedAnswer        an answer that the service does not give: a proxy's page, a truncated body
  WebhookRejected         a webhook whose signature is not right
  ApiError                an answer with a problem (RFC 9457)
    InvalidRequest        400, 413, 415 and the other 4xx
    Unauthenticated       401
    Forbidden             403
    NotFound              404, 410
    Conflict              409
      TaskCanceled        a canceled task has no result
    Overloaded            429
    ServerFault           500 and the other 5xx
      ServiceUnavailable  502, 503
    DeadlineExceeded      504: the task expired
    WaitTimeout           504: the task or batch goes on
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

__all__ = [
    "ApiError",
    "Conflict",
    "ConnectionFailed",
    "DeadlineExceeded",
    "Forbidden",
    "InferenceError",
    "InvalidRequest",
    "NotFound",
    "Overloaded",
    "ServerFault",
    "ServiceUnavailable",
    "TaskCanceled",
    "Unauthenticated",
    "UnexpectedAnswer",
    "WaitTimeout",
    "WebhookRejected",
]


class InferenceError(Exception):
    """Base of all errors of this package."""


class ConnectionFailed(InferenceError, ConnectionError):
    """The service did not answer, also after retries."""


class UnexpectedAnswer(InferenceError):
    """The answer is not one of the service: another server's page, or not the whole of it."""


class WebhookRejected(InferenceError):
    """The webhook is not signed with the secret, or it is too old or too new."""


class ApiError(InferenceError):
    """A problem that the service reports, or the error of a task that ended without a result.

    Attributes:
        detail: the problem in a sentence.
        status: HTTP status.
        code: stable name of the kind of problem: `invalid_image`.
        field: its place in the request: `metadata.shape`.
        expected: correct content of the field.
        task_id, batch_id: task or batch that the problem belongs to.
        request_id: `X-Request-ID` of the answer; the service's log has more under it. None in the error of a task.
        retry_after_s: seconds after which the service asks to try again.
        raw: the problem as JSON.
    """

    def __init__(
        self, detail: str, *, status: int, code: str, request_id: str | None = None, raw: Mapping[str, Any] | None = None
    ) -> None:
        """`raw` has the other members of the problem."""
        super().__init__(detail)
        problem = raw or {}
        self.detail = detail
        self.status = status
        self.code = code
        self.field: str | None = problem.get("field")
        self.expected: str | None = problem.get("expected")
        self.task_id: str | None = problem.get("task_id")
        self.batch_id: str | None = problem.get("batch_id")
        self.request_id = request_id
        self.retry_after_s: float | None = problem.get("retry_after_s")
        self.raw = problem

    def __reduce__(self) -> tuple[Any, ...]:
        """Make it possible to send the error to another process, which `multiprocessing` does."""
        problem = {**self.raw, "status": self.status, "code": self.code, "detail": self.detail}
        return partial(error_of_problem, request_id=self.request_id), (problem,)

    def __str__(self) -> str:
        parts = {"field": self.field, "expected": self.expected, "task": self.task_id, "batch": self.batch_id}
        known = "".join(f", {name} {value}" for name, value in (*parts.items(), ("request", self.request_id)) if value)
        return f"{self.detail} ({self.status} {self.code}{known})"


class InvalidRequest(ApiError):
    """The request or its image cannot be accepted as it is."""


class Unauthenticated(ApiError):
    """The API key is missing or unknown."""


class Forbidden(ApiError):
    """The API key does not allow this."""


class NotFound(ApiError):
    """The task, batch, model or image is not known, or no longer."""


class Conflict(ApiError):
    """The request does not fit the present state: the task has ended, the Idempotency-Key stands for another image."""


class TaskCanceled(Conflict):
    """The task was canceled, so it has no result."""


class Overloaded(ApiError):
    """The service has no room, also after retries."""


class ServerFault(ApiError):
    """The service failed."""


class ServiceUnavailable(ServerFault):
    """A part of the service is down, also after retries."""


class DeadlineExceeded(ApiError, TimeoutError):
    """The task did not end before its deadline."""


class WaitTimeout(ApiError, TimeoutError):
    """The task or batch did not end in the time that was waited for; it goes on."""


_BY_CODE: dict[str, type[ApiError]] = {
    "deadline_exceeded": DeadlineExceeded,
    "task_canceled": TaskCanceled,
    "wait_timeout": WaitTimeout,
}
_BY_STATUS: dict[int, type[ApiError]] = {
    HTTPStatus.UNAUTHORIZED: Unauthenticated,
    HTTPStatus.FORBIDDEN: Forbidden,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.GONE: NotFound,
    HTTPStatus.CONFLICT: Conflict,
    HTTPStatus.TOO_MANY_REQUESTS: Overloaded,
    HTTPStatus.BAD_GATEWAY: ServiceUnavailable,
    HTTPStatus.SERVICE_UNAVAILABLE: ServiceUnavailable,
}


def error_of_problem(problem: Mapping[str, Any], *, request_id: str | None = None) -> ApiError:
    """Make the error of a problem document: by its code, else by its status."""
    status, code = int(problem["status"]), str(problem["code"])
    default = ServerFault if status >= HTTPStatus.INTERNAL_SERVER_ERROR else InvalidRequest
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status, default)
    return kind(str(problem.get("detail", code)), status=status, code=code, request_id=request_id, raw=problem)
