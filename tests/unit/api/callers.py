"""Callers of an application whose keys are looked up by the test: a header names the caller."""

from __future__ import annotations

from typing import Any

from flask import Flask, request
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.security.caller import CALLER
from inference.access import Caller, Role

_HEADER = "X-Test-Caller"
ALICE, BOB = Caller("alice", Role.PREDICT, "k-alice"), Caller("bob", Role.PREDICT, "k-bob")
READER, ROOT = Caller("monitoring", Role.READ, "k-reader"), Caller("operations", Role.ADMIN, "k-root")
_BY_OWNER = {caller.owner: caller for caller in (ALICE, BOB, READER, ROOT)}


def add_caller(caller: Caller) -> Caller:
    _BY_OWNER[caller.owner] = caller
    return caller


def find_callers(app: Flask) -> None:
    """Let each request of `app` have the caller that its header names; without one, as without keys."""

    @app.before_request
    def find() -> None:
        if _HEADER in request.headers:
            request.environ[CALLER] = _BY_OWNER[request.headers[_HEADER]]


class ClientOf:
    """Test client of one caller."""

    def __init__(self, client: FlaskClient, caller: Caller) -> None:
        self._client = client
        self._caller = caller

    def open(self, path: str, method: str = "GET", headers: dict[str, str] | None = None, **options: Any) -> TestResponse:
        return self._client.open(path, method=method, headers={_HEADER: self._caller.owner} | (headers or {}), **options)

    def get(self, path: str, **options: Any) -> TestResponse:
        return self.open(path, **options)

    def post(self, path: str, **options: Any) -> TestResponse:
        return self.open(path, "POST", **options)

    def put(self, path: str, **options: Any) -> TestResponse:
        return self.open(path, "PUT", **options)

    def delete(self, path: str, **options: Any) -> TestResponse:
        return self.open(path, "DELETE", **options)
