"""Logging of all processes: one line for each event on standard error, as text or as JSON."""

from __future__ import annotations

import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any

import orjson

from inference.runtime.audit import AUDIT_LOGGER
from inference.runtime.log_context import logged_owner, logged_request_id
from inference.runtime.open_files import out_of_files
from inference.settings import LogSettings
from inference.settings.masking import MASK

_TEXT = "%(asctime)s %(levelname)-7s %(process_role)s %(name)s: %(message)s"

#: Longest message or exception: it may quote data that an unknown client sent.
_MAX_CHARACTERS = 8_000
#: Line ends, terminal commands, and marks that change the direction or the lines of the text after them.
_UNSAFE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
#: A password in a URL, which a library may quote in an error.
_PASSWORD = re.compile(r"(?<=://)([^\s/?#@:]*:)[^\s/?#]+(?=@)|(?<=[?&])(\w*(?:password|secret|token)=)[^\s&'\"]+")


def _safe(text: str) -> str:
    """Remove passwords in URLs, escape characters that a terminal would not show as text, and limit the length."""
    text = _PASSWORD.sub(lambda found: f"{found[1] or found[2]}{MASK}", text) if "://" in text else text
    half = _MAX_CHARACTERS // 2
    cut = text if len(text) <= _MAX_CHARACTERS else f"{text[:half]} …({len(text)} characters)… {text[-half:]}"
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), cut)


def task_text(task_id: str, owner: str) -> str:
    """Return a task as log lines name it: its id, and its owner if it has one."""
    return f"{task_id} of {owner}" if owner else task_id


class _TextFormatter(logging.Formatter):
    """Format of one line per event; the lines of an exception are indented, so that none of them looks like an event."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 logging's name
        request_id = f" [request {logged_request_id.get()}{_of_owner()}]" if logged_request_id.get() else ""
        record.message = _safe(record.message).replace("\n", "\\n") + request_id
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 logging's name
        return "    " + _safe(super().formatException(ei)).replace("\n", "\n    ")


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "process": getattr(record, "process_role", ""),
            "logger": record.name,
            "message": _safe(record.getMessage()),
        }
        if record.name == AUDIT_LOGGER:
            del event["message"]
            event["audit"] = orjson.Fragment(record.getMessage())
        if request_id := logged_request_id.get():
            event["request_id"] = request_id
        if owner := logged_owner.get():
            event["owner"] = owner
        if record.exc_info:
            event["exception"] = _safe(self.formatException(record.exc_info))
        return orjson.dumps(event).decode()


def _of_owner() -> str:
    owner = logged_owner.get()
    return f" of {owner}" if owner else ""


def _shorten_out_of_files(record: logging.LogRecord) -> None:
    """Replace the traceback by one sentence if no file could be opened: the cause is not in the code that the traceback names."""
    error = record.exc_info[1] if record.exc_info else None
    if error is not None and (cause := out_of_files(error)) is not None:
        record.msg, record.args = f"{record.getMessage()}: {cause.strerror}", None
        record.exc_info = record.exc_text = None


def configure_logging(settings: LogSettings, role: str) -> None:
    """Set up the root logger of this process.

    Args:
        role: the process: api, worker, relay or server.
    """

    def add_role(record: logging.LogRecord) -> bool:
        record.process_role = role
        _shorten_out_of_files(record)
        return True

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if settings.format == "json" else _TextFormatter(_TEXT))
    handler.addFilter(add_role)
    logging.basicConfig(level=settings.level, handlers=[handler], force=True)
