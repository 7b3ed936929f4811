"""Error handler for all routes: every error becomes RFC 9457 `application/problem+json` with a stable `code`."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, current_app, request
from werkzeug.exceptions import HTTPException

from api.v2.errors import error_document, is_v2
from api.views.responses import json_response
from api.views.urls import batch_url, prefixed, task_url
from inference.errors import (
    BatchNotFound,
    ConfigurationError,
    InferenceError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    ServiceUnavailable,
    TaskNotFound,
    Unauthenticated,
    UnsupportedContentEncoding,
)
from inference.ids import is_task_id
from inference.runtime.open_files import out_of_files, report

logger = logging.getLogger(__name__)

#: Key of the WSGI environment: `code` of the error with which the request was answered.
_ERROR_CODE = "inference.error_code"
_CHALLENGE = 'Bearer realm="inference"'


def problem_document(error: InferenceError) -> dict[str, Any]:
    """Members `type`, `title`, `status`, `detail` of RFC 9457; `code`, `field`, `expected`, `task_id`, `batch_id` if known."""
    return error.to_problem()


def error_body(error: InferenceError, path: str) -> tuple[dict[str, Any], str]:
    """The document and media type of the answer to a request for `path` that fails with `error`."""
    if is_v2(path):
        return error_document(error), "application/json"
    return problem_document(error), "application/problem+json"


def problem_response(error: InferenceError) -> Response:
    """The answer to a request that fails with `error`; details that clients may not see are logged with the request's id."""
    log_detail(error)
    request.environ[_ERROR_CODE] = error.code
    document, media_type = error_body(error, request.path)
    return json_response(document, error.status, headers=_headers(error), mimetype=media_type)


def error_code_in(environ: Mapping[str, Any]) -> str | None:
    """Return the code of the error with which a request was answered; None if it was no error."""
    return environ.get(_ERROR_CODE)


def log_detail(error: InferenceError) -> None:
    """Log the details of an error that clients may not see."""
    if error.detail != error.public:
        logger.warning("%s", error.detail)


def public_text(error: InferenceError) -> str:
    """The text of an error for clients; the details that they may not see are logged."""
    log_detail(error)
    return error.public


def _headers(error: InferenceError) -> dict[str, str]:
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if isinstance(error, Unauthenticated):  # RFC 6750, section 3: `invalid_token` only if the request had a key
        headers["WWW-Authenticate"] = _CHALLENGE + (', error="invalid_token"' if error.field else "")
    if isinstance(error, UnsupportedContentEncoding):  # RFC 9110, section 15.5.16
        headers["Accept-Encoding"] = "gzip, deflate" if is_v2(request.path) else "identity"
    if isinstance(error, TaskNotFound | BatchNotFound):
        return headers
    if error.task_id is not None and is_task_id(error.task_id):
        headers["Location"] = task_url(error.task_id)
    elif error.batch_id is not None and is_task_id(error.batch_id):
        headers["Location"] = batch_url(error.batch_id)
    return headers


def register_error_handlers(app: Flask) -> None:
    """Let `app` answer every error with a problem document."""
    app.register_error_handler(InferenceError, problem_response)
    app.register_error_handler(ConfigurationError, _unexpected)
    app.register_error_handler(HTTPException, http_problem)
    app.register_error_handler(Exception, _unexpected)


def http_problem(error: HTTPException) -> Response:
    """Convert an error that Flask or Werkzeug raises."""
    match error.code:
        case HTTPStatus.NOT_FOUND:
            problem: InferenceError = NotFound("there is nothing at this path", expected=_known_paths())
        case HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = dict(error.get_headers()).get("Allow", "").split(", ")
            expected = f"one of {', '.join(sorted(allowed))}"
            problem = MethodNotAllowed("this path does not take this method", expected=expected)
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            limit = current_app.config["MAX_CONTENT_LENGTH"]
            problem = PayloadTooLarge(f"the request body is larger than {limit} bytes (api.max_body_bytes)")
        case code if code is not None and code < HTTPStatus.INTERNAL_SERVER_ERROR:
            problem = InvalidRequest(error.description or "the request cannot be read")
        case _:
            return _unexpected(error)
    response = problem_response(problem)
    for name, value in error.get_headers():
        if name == "Allow":
            response.headers[name] = value
    return response


def _known_paths() -> str:
    """Say where the paths are described."""
    return "a path of docs/v2.md" if is_v2(request.path) else f"see GET {prefixed('/')} for the paths"


def _unexpected(error: Exception) -> Response:
    no_files = out_of_files(error)
    if no_files is not None:
        report(no_files)
        return problem_response(ServiceUnavailable("the service has too many files open", retry_after_s=1))
    logger.error("a request failed", exc_info=error)
    return problem_response(InferenceError("an unexpected error occurred; the server's log has it"))
