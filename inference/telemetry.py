"""How processes of this service log: one line an event on standard error, as text or as JSON."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import orjson

from inference.open_files import out_of_files
from inference.settings import LogSettings

_TEXT = "%(asctime)s %(levelname)-7s %(process_role)s %(name)s: %(message)s"


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        event = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "process": getattr(record, "process_role", ""),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(event).decode()


def _say_that_files_ran_out(record: logging.LogRecord) -> None:
    """One sentence in place of a traceback, whoever logs it: it says nothing of our code that no file can be opened."""
    error = record.exc_info[1] if record.exc_info else None
    if error is not None and (cause := out_of_files(error)) is not None:
        record.msg, record.args = f"{record.getMessage()}: {cause.strerror}", None
        record.exc_info = record.exc_text = None


def configure_logging(settings: LogSettings, role: str) -> None:
    """Set up the root logger of this process.

    Args:
        role: what this process is: api, worker, relay, server.
    """

    def add_role(record: logging.LogRecord) -> bool:
        record.process_role = role
        _say_that_files_ran_out(record)
        return True

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if settings.format == "json" else logging.Formatter(_TEXT))
    handler.addFilter(add_role)
    logging.basicConfig(level=settings.level, handlers=[handler], force=True)
