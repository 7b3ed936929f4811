"""Access log: one line for each HTTP request, when its answer has ended.

    answer ends ──▶ line ──▶ LineWriter ──every 0.1 s, on a thread of the system──▶ standard error

The lines are those of the logger `access`, whose level decides as for every logger. They are no records of Python's logging,
which takes several times as long for each: see docs/decisions.md.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from api.security.middleware import LOGGED_FIELDS, LOGGED_ROUTE
from api.server.line_writer import LineWriter
from inference.runtime.log import formatter_for
from inference.runtime.log_formats import TextFormatter, utc_time
from inference.runtime.log_masking import safe_text
from inference.settings import LogSettings

ACCESS_LOGGER = "access"
ROLE = "api"
#: Routes that supervisors and collectors ask every few seconds, and `server.py` often while it starts: the level of their lines
#: is DEBUG.
_PROBES = {
    "/health/live",
    "/health/ready",
    "/metrics",
    "/v2/health/live",
    "/v2/health/ready",
}
#: Longest method and path of a request that matches no route, characters.
_MAX_METHOD, _MAX_PATH = 20, 200
_MILLISECOND = timedelta(milliseconds=1)


class AccessLog:
    """Writes the lines of one process.

    Args:
        settings: level and format, as of the other lines.
        writer: gets the lines.
    """

    def __init__(self, settings: LogSettings, writer: LineWriter) -> None:
        self._level = logging.getLogger(ACCESS_LOGGER).getEffectiveLevel() if settings.access else logging.CRITICAL
        self._writer = writer
        formatter = formatter_for(settings, sys.stderr)
        self._text = formatter if isinstance(formatter, TextFormatter) else None

    def note(self, status: int, sent_bytes: int, environ: Mapping[str, Any], took: timedelta) -> None:
        """Log a request.

        Args:
            sent_bytes: bytes of the answer's body that were sent.
            environ: of the request.
            took: time from its head to the end of its answer; less than none if the system's clock was set back.
        """
        if self._level > logging.INFO:
            return
        route = environ.get(LOGGED_ROUTE, "")
        is_probe = route in _PROBES
        if is_probe and self._level > logging.DEBUG:
            return
        fields = {"duration_ms": max(0.0, took / _MILLISECOND), "bytes": sent_bytes, **environ.get(LOGGED_FIELDS, {})}
        level = "DEBUG" if is_probe else "INFO"
        path = "" if route else _shown(environ["PATH_INFO"])
        self._write(_Head(level, environ["REQUEST_METHOD"], route, path, status), fields)

    def note_refused(self, status: int, start: bytes) -> None:
        """Log a request that was not valid HTTP, or whose body did not come.

        Args:
            start: its first bytes.
        """
        if self._level <= logging.INFO:
            method, path = (*start.partition(b"\r\n")[0].decode("latin-1").split(" "), "", "")[:2]
            self._write(_Head("INFO", _shown(method)[:_MAX_METHOD], "", _shown(path.partition("?")[0]), status), {"bytes": 0})

    def flush(self) -> None:
        """Write the lines that wait."""
        self._writer.flush()

    def _write(self, head: _Head, fields: dict[str, Any]) -> None:
        now = time.time()
        if self._text is None:
            members = orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
            self._writer.write(b'{"time":"%b",%b,%b' % (utc_time(now).encode(), _members(head), members[1:]))
            return
        milliseconds = fields.pop("duration_ms", None)
        message = head.message if milliseconds is None else f"{head.message} {milliseconds:.1f} ms"
        self._writer.write(self._text.line(now, head.level, f"{ROLE} {ACCESS_LOGGER}", message, fields).encode() + b"\n")


class _Head(NamedTuple):
    """Part of a line that many requests have in common."""

    level: str
    method: str
    #: as in metrics; empty if the request matches none
    route: str
    #: the path of a request that matches none; else empty
    path: str
    status: int

    @property
    def message(self) -> str:
        return f"{self.method} {self.route or self.path} {self.status}"


@lru_cache(maxsize=1024)
def _members(head: _Head) -> bytes:
    """Return the members of a line's JSON object, without braces."""
    members = {"level": head.level, "process": ROLE, "logger": ACCESS_LOGGER, "message": head.message, **head._asdict()}
    return orjson.dumps({name: value for name, value in members.items() if value != ""})[1:-1]


def _shown(text: str) -> str:
    return safe_text(text)[:_MAX_PATH].replace("\n", "\\n")
