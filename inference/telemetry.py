"""How processes of this service log: one line an event on standard error, as text or as JSON."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import orjson

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


def configure_logging(settings: LogSettings, role: str) -> None:
    """Set up the root logger of this process.

    Args:
        role: what this process is: api, worker, relay, server.
    """

    def add_role(record: logging.LogRecord) -> bool:
        record.process_role = role
        return True

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if settings.format == "json" else logging.Formatter(_TEXT))
    handler.addFilter(add_role)
    logging.basicConfig(level=settings.level, handlers=[handler], force=True)
