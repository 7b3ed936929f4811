"""Exit codes of the command line, and the errors that lead to them."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from enum import IntEnum
from http import HTTPStatus
from typing import IO, Any

import click

from rohe_inference.cli.terminal import printable
from rohe_inference.errors import (
    ApiError,
    ConnectionFailed,
    Forbidden,
    ServiceUnavailable,
    Unauthenticated,
    UnexpectedAnswer,
)

DEBUG_VARIABLE = "ROHE_INFERENCE_DEBUG"


class ExitCode(IntEnum):
    """Exit codes, as the program's help and docs/command-line.md list them."""

    OK = 0
    #: some images failed, or a task ended otherwise than `succeeded`
    FAILED = 1
    USAGE = 2
    #: the service does not answer, or answers that it is down
    UNREACHABLE = 3
    #: the API key is missing or wrong, or may not do this
    FORBIDDEN = 4
    #: the service refused the request for another reason
    REFUSED = 5
    #: `wait --timeout`: some tasks have not ended
    NOT_ENDED = 6
    #: an error of this program
    INTERNAL = 70
    INTERRUPTED = 130
    #: the program that reads the output has ended, as in `… | head`
    CLOSED_PIPE = 141


class CommandError(click.ClickException):
    """An error that is shown as a sentence, and ends the command with `exit_code`."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__("\n".join(map(printable, message.splitlines())))
        self.exit_code = exit_code  # type: ignore[misc]  # click reads that of the instance

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the sentence on stderr."""
        if self.exit_code == ExitCode.INTERRUPTED:
            click.echo(self.message, file=file, err=True)
        else:
            super().show(file)

    def with_hint(self, hint: str) -> CommandError:
        """Return the error with another sentence below it."""
        return CommandError(f"{self.message}\n{hint}", ExitCode(self.exit_code))


class ServiceUnreachable(CommandError):
    """The service does not answer, or is down."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.UNREACHABLE)


def error_of(error: Exception) -> CommandError:
    """Return the sentence and exit code for an error that no command handles."""
    if isinstance(error, CommandError):
        return error
    if isinstance(error, ApiError):
        return CommandError(_api_text(error), _exit_code(error))
    if isinstance(error, ConnectionFailed):
        return ServiceUnreachable(unreachable_text(error))
    if isinstance(error, UnexpectedAnswer):
        return ServiceUnreachable(f"{error}. Is the address that of the service? --url names another one")
    if isinstance(error, OSError):
        return CommandError(f"{error.filename}: {error.strerror}" if error.filename else str(error), ExitCode.USAGE)
    return _internal(error)


def unreachable_text(error: ConnectionFailed) -> str:
    """Return the sentence about a service that does not answer."""
    return f"{str(error).rstrip('.')}. Is the service running? --url or `rohe-inference login` names another address"


def problem_text(document: Mapping[str, Any]) -> str:
    """Return a problem (RFC 9457) as a sentence: its detail, the place, and the expected value."""
    text = str(document.get("detail") or document.get("title") or document.get("code") or "unknown error").rstrip(".")
    field, expected = document.get("field"), document.get("expected")
    if field and str(field) not in text:
        text += f" (in {field})"
    return f"{text}; expected: {expected}" if expected else text


def _exit_code(error: ApiError) -> ExitCode:
    if isinstance(error, ServiceUnavailable):
        return ExitCode.UNREACHABLE
    return ExitCode.FORBIDDEN if isinstance(error, (Unauthenticated, Forbidden)) else ExitCode.REFUSED


def _api_text(error: ApiError) -> str:
    if isinstance(error, Unauthenticated):
        return f"{error.detail.rstrip('.')}; give a key with `rohe-inference login`, or in ROHE_INFERENCE_API_KEY"
    text = problem_text(error.raw)
    if error.status == HTTPStatus.INTERNAL_SERVER_ERROR and error.request_id:
        return f"{text}; the service's log has more under {error.request_id}"
    return f"{text}; try again in {error.retry_after_s:.0f} s" if error.retry_after_s else text


def _internal(error: Exception) -> CommandError:
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error)
    text = f"an error of this program: {type(error).__name__}: {error}; {DEBUG_VARIABLE}=1 shows where"
    return CommandError(text, ExitCode.INTERNAL)
