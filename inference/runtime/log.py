"""Logging of all processes: one line for each event on standard error, as text or as JSON, with the fields of its context."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

from inference.runtime.log_context import LOG_FIELDS
from inference.runtime.log_formats import JsonFormatter, TextFormatter
from inference.runtime.open_files import out_of_files
from inference.settings import LogSettings

#: Levels of libraries that would log much that helps nobody, or the data that they handle; `log.levels` takes precedence.
_LIBRARY_LEVELS = {"PIL": "INFO", "pymongo": "INFO", "kafka.net": "INFO", "kafka.protocol": "INFO", "gunicorn.error": "WARNING"}


def _add_fields(record: logging.LogRecord) -> None:
    """Set the fields of a line: those of its context, unless the call has given them in `extra`."""
    values = record.__dict__
    for name, variable in LOG_FIELDS.items():
        if name not in values:
            values[name] = variable.get()


def _shorten_out_of_files(record: logging.LogRecord) -> None:
    """Replace the traceback by one sentence if no file could be opened: the cause is not in the code that the traceback names."""
    error = record.exc_info[1] if record.exc_info else None
    if error is not None and (cause := out_of_files(error)) is not None:
        record.msg, record.args = f"{record.getMessage()}: {cause.strerror}", None
        record.exc_info = record.exc_text = None


def shows_colours(stream: TextIO) -> bool:
    """Whether lines on `stream` have colours: on a terminal, unless `NO_COLOR` is set; elsewhere if `FORCE_COLOR` is set."""
    if os.environ.get("NO_COLOR"):  # https://no-color.org
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def formatter_for(settings: LogSettings, stream: TextIO) -> TextFormatter | JsonFormatter:
    """Return the formatter for `stream`; the format `auto` is text on a terminal, and where colours are forced, else JSON."""
    is_text = stream.isatty() or shows_colours(stream) if settings.format == "auto" else settings.format == "text"
    return TextFormatter(colours=shows_colours(stream)) if is_text else JsonFormatter()


@dataclass(frozen=True)
class LogSetup:
    """Format and levels of the lines of a process; a child process gets those of its parent."""

    formatter: TextFormatter | JsonFormatter
    level: str
    #: by logger
    levels: Mapping[str, str]

    def apply(self, role: str) -> None:
        """Set up the loggers of this process.

        Args:
            role: the process: api, worker, predictor, relay or server.
        """

        def complete(record: logging.LogRecord) -> bool:
            record.process_role = role
            _add_fields(record)
            _shorten_out_of_files(record)
            return True

        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(self.formatter)
        handler.addFilter(complete)
        logging.basicConfig(level=self.level, handlers=[handler], force=True)
        for name, level in self.levels.items():
            logging.getLogger(name).setLevel(level)


class _Current:
    """Setup of this process."""

    setup: LogSetup | None = None


def configure_logging(settings: LogSettings, role: str) -> None:
    """Set up the loggers of this process; `role` as in `LogSetup.apply`."""
    _Current.setup = LogSetup(formatter_for(settings, sys.stderr), settings.level, {**_LIBRARY_LEVELS, **settings.levels})
    _Current.setup.apply(role)


def current_log_setup() -> LogSetup | None:
    """Return the setup of this process; None if it has none, as the commands of `server.py`."""
    return _Current.setup
