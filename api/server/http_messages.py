"""HTTP/1.1 messages: gunicorn's parser, whose errors become those of this service.

bytes ──parse──▶ head ──▶ application ──reads──▶ body
           │                                       │
  400, 408, 414, 417, 431, 501                    400
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import orjson
from gunicorn.http import errors
from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.message import Request
from gunicorn.http.parser import Parser
from gunicorn.util import http_date

from api.security.headers import SECURITY_HEADERS, header_lines
from api.server.body_budget import BodyBudget, BodyReservation
from api.server.minimum_pace import Pace, PacedUnreader
from api.views.problems import error_body
from inference.errors import (
    ExpectationFailed,
    HeaderFieldsTooLarge,
    InferenceError,
    InvalidRequest,
    TransferCodingNotImplemented,
    UriTooLong,
)

#: Maximum characters of a parser's message in an answer; the message may quote the request.
_SHOWN_LENGTH = 120
#: Limits of a request's head; gunicorn's own defaults.
MAX_REQUEST_LINE_BYTES = 4094
MAX_HEADER_FIELDS = 100
MAX_HEADER_FIELD_BYTES = 8190

#: Errors of gunicorn's parser: the first matching row determines the answer; {} is the parser's own message.
_REFUSALS: tuple[tuple[type[Exception], type[InferenceError], str], ...] = (
    (errors.LimitRequestLine, UriTooLong, f"the request line has more than {MAX_REQUEST_LINE_BYTES} bytes"),
    (
        errors.LimitRequestHeaders,
        HeaderFieldsTooLarge,
        f"there are more than {MAX_HEADER_FIELDS} header fields, or one has more than {MAX_HEADER_FIELD_BYTES} bytes",
    ),
    (errors.UnsupportedTransferCoding, TransferCodingNotImplemented, "the only transfer coding here is chunked: {}"),
    (errors.ExpectationFailed, ExpectationFailed, "the only expectation here is 100-continue: {}"),
    (errors.ParseException, InvalidRequest, "the request is not valid HTTP/1.1: {}"),
)
_SECURITY_LINES = header_lines(SECURITY_HEADERS)
#: Bytes of a body that are read at a time. If a client stalls within a step, its received bytes are in memory, but not counted.
STEP_BYTES = 2**16
#: The first byte of a TLS handshake record.
_TLS_HANDSHAKE = b"\x16"


class HttpBody(Body):  # type: ignore[misc] # gunicorn has no types
    """Body of a request; reading it raises InvalidRequest if the framing is wrong or the end is missing."""

    reader: Any
    failed: bool
    #: part of the process's budget; None for a body that is not kept
    reservation: BodyReservation | None = None

    def reserve_in(self, budget: BodyBudget) -> None:
        """Count the bytes that are read against `budget`, until `release`."""
        reader = self.reader
        self.reservation = BodyReservation(budget, reader.length if isinstance(reader, LengthReader) else None)

    def hold(self, size: int) -> None:
        """Count `size` bytes that a handler holds, until `release`. Raises ServiceUnavailable, PayloadTooLarge."""
        if self.reservation is not None:
            self.reservation.hold(size)

    def release(self) -> None:
        """Return the reserved part of the budget; bytes that are read later are not kept."""
        if self.reservation is not None:
            self.reservation.release()
            self.reservation = None

    def drop(self) -> None:
        """Read and discard the rest of the body. Raises InvalidRequest, RequestTimeout.

        gunicorn's own method reads a kilobyte at a time, and copies all received bytes each time.
        """
        while self.read(STEP_BYTES):
            pass

    def _read_reader(self, size: int) -> bytes:
        size = min(size, STEP_BYTES)
        if self.reservation is None:
            return self._read_whole(size)
        self.reservation.open()
        data = self._read_whole(size)
        try:
            self.reservation.grow(len(data))
        except InferenceError:
            self.failed = True
            self.reservation.release()
            raise
        return data

    def _read_whole(self, size: int) -> bytes:
        reader = self.reader
        due = min(size, reader.length) if isinstance(reader, LengthReader) else 0
        try:
            data: bytes = super()._read_reader(size)
        except OSError as error:
            raise InvalidRequest("the request body ended before its last chunk") from error
        except errors.ParseException as error:
            raise InvalidRequest(f"the request body is not valid chunked coding: {_shown(error)}") from error
        if len(data) < due:
            self.failed = True
            raise InvalidRequest("the request body ended before its Content-Length")
        return data

    @property
    def is_at_end(self) -> bool:
        """Whether the next byte on the connection belongs to another request."""
        reader = self.reader
        return not (reader.length if isinstance(reader, LengthReader) else reader.parser or self.failed)


def count_no_body(environ: dict[str, Any]) -> None:
    """Leave the body of a request out of the budget: its handler passes the bytes on as they come, and keeps none."""
    body = environ["wsgi.input"]
    if isinstance(body, HttpBody):
        body.release()


def holder_of(environ: dict[str, Any]) -> Callable[[int], None]:
    """Return the function that counts bytes which a handler holds until its request ends.

    Under another server, it counts nothing.

    The function raises ServiceUnavailable or PayloadTooLarge: there is no room for them now, or ever.
    """
    body = environ["wsgi.input"]
    return body.hold if isinstance(body, HttpBody) else lambda _: None


class HttpRequest(Request):  # type: ignore[misc]
    """Head of a request, with a body that is to be read."""

    body: Any
    path: str

    def parse(self, unreader: Any) -> Any:
        """Read the head; returns the bytes after it."""
        rest = super().parse(unreader)
        self.path = self.path or "/"  # empty in http://HOST: Flask would answer with an HTML redirect
        return rest

    def set_body_reader(self) -> None:
        super().set_body_reader()
        if isinstance(self.body.reader, ChunkedReader):
            self._check_transfer_coding()
        self.body = HttpBody(self.body.reader)

    def should_close(self) -> bool:
        """Whether no request can follow: after a body that failed, the start of the next request is unknown."""
        return self.body.failed or bool(super().should_close())

    def _check_transfer_coding(self) -> None:
        codings = next(value for name, value in self.headers if name == "TRANSFER-ENCODING")
        if codings.lower() != "chunked":  # gunicorn passes compressed bodies on without decoding
            raise errors.UnsupportedTransferCoding(codings)

    def _apply_header_policy(self, name: str, value: str, *state: Any, **options: Any) -> Any:
        # gunicorn drops names with underscores, or applies this one itself; here `api.security.proxies` decides who may set it.
        return super()._apply_header_policy("SCRIPT-NAME" if name == "SCRIPT_NAME" else name, value, *state, **options)


class HttpParser(Parser):  # type: ignore[misc]
    """Parser of the requests of one connection."""

    mesg_class = HttpRequest
    unreader: PacedUnreader

    def __init__(self, cfg: Any, client: Any, address: Any, pace: Pace) -> None:
        super().__init__(cfg, client, address)
        self.unreader = PacedUnreader(client, pace)


def check_protocol(first_bytes: bytes) -> None:
    """Refuse a client that speaks TLS: its first message would never end as a request does. Raises InvalidRequest."""
    if first_bytes.startswith(_TLS_HANDSHAKE):
        raise InvalidRequest("this port serves HTTP, not HTTPS", expected="http:// in place of https://")


def refusal(error: Exception) -> InferenceError | None:
    """The error for a request that is refused before it reaches the application; None for a bug in this service."""
    if isinstance(error, InferenceError):
        return error
    if isinstance(error, errors.InvalidResponseHeader | errors.InvalidResponseHeaderName):
        return None
    for cause, kind, sentence in _REFUSALS:
        if isinstance(error, cause):
            return kind(sentence.format(_shown(error)))
    return None


def response_bytes(error: InferenceError, start: bytes = b"") -> bytes:
    """A whole response with the document of an error, after which the connection is closed.

    Args:
        start: the first bytes of the request; of the answer to HEAD, only the head is sent.
    """
    method, _, rest = start.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0].decode("latin-1")
    document, media_type = error_body(error, path)
    body = orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)
    head = (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n"
        f"Date: {http_date()}\r\n"
        "Connection: close\r\n"
        f"Content-Type: {media_type}\r\n"
        f"{_SECURITY_LINES}"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("latin-1") + (b"" if method == b"HEAD" else body)


def _shown(error: Exception) -> str:
    text = str(error)
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}…"
