"""Answers without the header Server, which gunicorn has no setting for."""

from __future__ import annotations

from gunicorn.http import wsgi

_NAME = "Server:"


class _Response(wsgi.Response):  # type: ignore[misc] # gunicorn has no types
    def default_headers(self) -> list[str]:
        return [line for line in super().default_headers() if not line.startswith(_NAME)]


def leave_out_server_header() -> None:
    """Let gunicorn's answers in this process name no software."""
    wsgi.Response = _Response
