"""Requests to the service and its replies, apart from the library that sends them."""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from rohe_inference.errors import ApiError, UnexpectedAnswer, error_of_problem

#: Statuses of refusals that left nothing behind, or that an Idempotency-Key makes safe to repeat.
_TEMPORARY = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_EARLY,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
#: Codes of 504 that are final: the task ended, or the service has waited for as long as it may.
_FINAL_CODES = frozenset({"deadline_exceeded", "wait_timeout"})
_SHOWN_CHARACTERS = 200

#: A file of a form: its name and content.
FormFile = tuple[str, bytes]


@dataclass(frozen=True)
class Request:
    """One request; sending it again is safe.

    Attributes:
        path: below the service's address, or the whole URL of an object store.
        files: parts `image` of a form, whose other field is `metadata`.
        document: body as JSON; not together with `files`.
        content: body as bytes.
        patience_s: seconds that the service may take to answer, beyond the client's usual patience.
        receive: gets each line of an answer in JSON Lines as it comes; then the reply has no body.
    """

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[FormFile] = ()
    metadata: str | None = None
    document: Any = None
    content: bytes | None = None
    patience_s: float = 0.0
    receive: Callable[[str], None] | None = None


@dataclass(frozen=True)
class Reply:
    """One answer; names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def media_type(self) -> str:
        """Content-Type without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def document(self) -> Any:
        """Read the body of a success as JSON. Raises ApiError for a problem, UnexpectedAnswer for anything else."""
        self.check()
        try:
            return json.loads(self.body)
        except ValueError:
            raise UnexpectedAnswer(f"the answer is not JSON: {self._excerpt()}") from None

    def check(self) -> None:
        """Check that the request succeeded. Raises ApiError for a problem, UnexpectedAnswer for a redirect."""
        if self.status >= HTTPStatus.BAD_REQUEST:
            raise self.error()
        if self.status >= HTTPStatus.MULTIPLE_CHOICES:
            target = self.headers.get("location", "elsewhere")
            raise UnexpectedAnswer(f"the answer is a redirect to {target}: use the service's own address")

    def error(self) -> ApiError:
        """Make the error of a failure, also if another server, such as a proxy, gave the answer."""
        problem: Any = None
        with suppress(ValueError):
            problem = json.loads(self.body)
        if not isinstance(problem, dict) or not {"code", "status"} <= problem.keys():
            status = HTTPStatus(self.status) if self.status in set(HTTPStatus) else HTTPStatus.INTERNAL_SERVER_ERROR
            problem = {"status": self.status, "code": status.name.lower(), "detail": self._excerpt() or status.phrase}
        return error_of_problem(problem, request_id=self.headers.get("x-request-id"))

    def is_temporary(self) -> bool:
        """Whether the same request may succeed later."""
        if self.status not in _TEMPORARY:
            return False
        return self.status != HTTPStatus.GATEWAY_TIMEOUT or self.error().code not in _FINAL_CODES

    def retry_after_s(self) -> float | None:
        """Return the seconds after which the service asks to come back; None if it does not say."""
        exact = self.error().retry_after_s
        text = self.headers.get("retry-after")
        if exact is not None or text is None:
            return exact
        with suppress(ValueError):
            return max(0.0, float(text))
        with suppress(ValueError, TypeError):
            return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
        return None

    def _excerpt(self) -> str:
        text = " ".join(self.body[: 4 * _SHOWN_CHARACTERS].decode("utf-8", "replace").split())
        return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
