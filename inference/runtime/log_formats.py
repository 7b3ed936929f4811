"""Formats of log lines: text, in colours for a terminal, and one JSON object a line."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from inference.runtime.audit import AUDIT_LOGGER
from inference.runtime.log_context import LOG_FIELDS
from inference.runtime.log_masking import escape, safe_text

_RESET, _DIM = "\x1b[0m", "\x1b[2m"
_LEVEL_COLOURS = {"DEBUG": "\x1b[2m", "INFO": "\x1b[32m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[1;31m"}
#: Fields that a message may contain already; then a line of text does not repeat them.
_IDS = {"request_id", "task_id", "batch_id"}


class TextFormatter(logging.Formatter):
    """Format of one line per event; the lines of an exception are indented, so that none of them looks like an event.

    Args:
        colours: whether the lines are for a terminal that shows colours.
    """

    def __init__(self, *, colours: bool) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and those of the exception."""
        message = safe_text(record.getMessage()).replace("\n", "\\n")
        source = f"{role_of(record)} {record.name}"
        line = self.line(record.created, record.levelname, source, message, fields_of(record))
        if record.exc_info:
            line += "\n    " + safe_text(self.formatException(record.exc_info)).replace("\n", "\n    ")
        return line

    def line(self, at: float, level: str, source: str, message: str, fields: Mapping[str, Any]) -> str:
        """Return a line whose values are safe already; `source` is the kind of process and the logger."""
        clock = f"{_local_second(int(at))},{int(at % 1 * 1000):03d}"
        shown = " ".join(f"{name}={value}" for name, value in fields.items() if name not in _IDS or value not in message)
        if not self._colours:
            return f"{clock} {level:7} {source}: {message}" + (f" [{shown}]" if shown else "")
        suffix = f" {_DIM}[{shown}]{_RESET}" if shown else ""
        colour = _LEVEL_COLOURS.get(level, "")
        return f"{_DIM}{clock}{_RESET} {colour}{level:7}{_RESET} {_DIM}{source}:{_RESET} {message}{suffix}"


class JsonFormatter(logging.Formatter):
    """Format of one JSON object per event."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object, without a line end."""
        event: dict[str, Any] = {
            "time": utc_time(record.created),
            "level": record.levelname,
            "process": role_of(record),
            "logger": record.name,
        }
        if record.name == AUDIT_LOGGER:
            event["audit"] = orjson.Fragment(record.getMessage())
        else:
            event["message"] = safe_text(record.getMessage())
        event.update(fields_of(record))
        if record.exc_info:
            event["exception"] = safe_text(self.formatException(record.exc_info))
        return orjson.dumps(event).decode()


def utc_time(at: float) -> str:
    """Return a time, seconds since the epoch, in RFC 3339 with milliseconds."""
    return f"{_utc_second(int(at))}.{int(at % 1 * 1000):03d}+00:00"


def fields_of(record: logging.LogRecord) -> dict[str, str]:
    """Return the fields of a line that are not empty, as `add_fields` found them."""
    values = record.__dict__
    return {name: escape(value).replace("\n", "\\n") for name in LOG_FIELDS if (value := values.get(name))}


def role_of(record: logging.LogRecord) -> str:
    """Return the kind of process that logs: api, worker, predictor, relay or server."""
    role: str = getattr(record, "process_role", "")
    return role


@lru_cache(maxsize=1)  # lines come in the order of time
def _utc_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@lru_cache(maxsize=1)
def _local_second(second: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
