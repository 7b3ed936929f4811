"""Log of gunicorn: its lines are those of the process, in the same format, and each request is a line of the access log."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from gunicorn.glogging import Logger

from api.server.access_log import AccessLog


class GunicornLog(Logger):  # type: ignore[misc] # gunicorn has no types
    """Logger without handlers of its own.

    Attributes:
        requests: the access log of this process.
    """

    requests: AccessLog

    def setup(self, cfg: Any) -> None:
        """Pass the lines on to the handlers of the process, whose settings decide about levels."""
        self.cfg = cfg
        self.error_log.propagate = True

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: timedelta) -> None:  # noqa: ARG002 gunicorn's signature
        """Log a request whose answer has ended."""
        self.requests.note(getattr(resp, "status_code", 0), resp.sent, environ, request_time)
