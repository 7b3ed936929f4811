"""Check of the key of each request, before anything of its body is read.

    operation ──needs no key──────────────────────────────▶ served
        │
    Authorization, X-API-Key ──none──▶ 401   ──two──▶ 400
        │
    KeyRing.find ──not valid──▶ 401; 429 after some failures of an address
        │
    role of the key ──not that of the operation──▶ 403
        │
        ▼ served; `api.security.caller` has the caller

Operations and their roles: `api.openapi.operations`. While the service has no keys nothing of this is installed.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NoReturn

from flask import Flask, Request, request
from flask.globals import request_ctx

from api.openapi.operations import OPERATIONS
from api.security.caller import CALLER, IS_STILL_VALID, NOBODY
from api.security.failed_keys import FailedKeys
from api.security.needed_role import NeededRole
from api.security.sent_key import SentKey, read_sent_key
from inference.access import Caller
from inference.errors import Forbidden, RateLimited, ServiceUnavailable, Unauthenticated
from inference.keys.key_ring import KeyRing
from inference.keys.key_text import claimed_id
from inference.runtime.audit import audit, caller_identity
from inference.runtime.log_context import logged_owner


class KeyCheck:
    """Check of the keys of an application's requests.

    Args:
        ring: the valid keys.
        failed: failures by address.
        open_metrics: whether status and metrics need no key.
    """

    def __init__(self, ring: KeyRing, failed: FailedKeys, *, open_metrics: bool) -> None:
        self._ring = ring
        self._failed = failed
        self._needed = needed_roles(open_metrics=open_metrics)

    def install(self, app: Flask) -> None:
        """Check each request of `app`, before the values in its path are checked."""
        app.url_value_preprocessor(self._check)

    def _check(self, endpoint: str | None, values: dict[str, Any] | None) -> None:  # noqa: ARG002 Flask's signature
        """Find the caller of the current request. Raises Unauthenticated, Forbidden, InvalidRequest, RateLimited."""
        current: Request = request_ctx.request  # each use of `request`, a proxy, costs 2 us
        environ = current.environ
        needed = self._needed_role(current)
        if needed is NeededRole.NONE:
            environ[CALLER] = NOBODY
            return
        sent = read_sent_key(environ)
        caller = self._ring.find(sent.text)
        if caller is None:
            self._refuse(sent)
        if caller.role not in needed.roles:
            _forbid(current, needed, caller)
        environ[CALLER] = caller
        logged_owner.set(caller.owner)
        environ[IS_STILL_VALID] = partial(self._is_still_valid, sent.text, caller)

    def _needed_role(self, current: Request) -> NeededRole:
        """Return the role that a request needs; `admin` for a route that is no operation."""
        rule, method = current.url_rule, current.method
        if rule is None or method == "OPTIONS":  # the answer is 404, 405 or the methods of a path
            return NeededRole.ANY
        return self._needed.get((rule.rule, method), NeededRole.ADMIN)

    def _refuse(self, sent: SentKey) -> NoReturn:
        """Log that a key is not valid. Raises Unauthenticated; RateLimited, without a line, after many in a short time."""
        address = request.environ.get("REMOTE_ADDR", "")
        retry_after_s = self._failed.note(address)
        if retry_after_s is not None:
            raise RateLimited("too many requests of this address had keys that are not valid", retry_after_s=retry_after_s)
        who = {"key_id": claimed_id(sent.text)}
        outcome = self._ring.explain(sent.text)
        audit("key.refused", who=who, source=address, target=f"{request.method} {request.path}", outcome=outcome)
        raise Unauthenticated("the key is not valid: it is mistyped, unknown, expired or revoked", field=sent.header)

    def _is_still_valid(self, text: str, caller: Caller) -> bool:
        try:
            return self._ring.find(text) == caller
        except ServiceUnavailable:
            return True


def _forbid(current: Request, needed: NeededRole, caller: Caller) -> NoReturn:
    """Raise Forbidden, and log it if the operation needs the role admin."""
    if needed is NeededRole.ADMIN:
        who, source = caller_identity(caller), current.environ.get("REMOTE_ADDR", "")
        audit("key.refused", who=who, source=source, target=f"{current.method} {current.path}", outcome=Forbidden.code)
    roles = " or ".join(needed.roles)
    raise Forbidden(f"{current.method} {current.url_rule} needs a key with the role {roles}; this key has the role {caller.role}")


def needed_roles(*, open_metrics: bool) -> dict[tuple[str, str], NeededRole]:
    """Return the roles of all operations, by rule of Flask and method."""
    found: dict[tuple[str, str], NeededRole] = {}
    for operation in OPERATIONS:
        is_opened = open_metrics and operation.role is NeededRole.READ  # status and metrics
        role = NeededRole.NONE if is_opened else operation.role
        rule = operation.path.replace("{", "<").replace("}", ">")
        for method in ("GET", "HEAD") if operation.method == "get" else (operation.method.upper(),):
            found[rule, method] = role
    return found
