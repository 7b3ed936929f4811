"""Key in the header of a request."""

from __future__ import annotations

from typing import Any, NamedTuple

from api.security.headers import KEY_HEADER
from inference.errors import InvalidRequest, Unauthenticated

_AUTHORIZATION = "Authorization"
_EXPECTED = f"{_AUTHORIZATION}: Bearer KEY, or {KEY_HEADER}: KEY"


class SentKey(NamedTuple):
    """Key and the header that has it."""

    text: str
    header: str


def read_sent_key(environ: dict[str, Any]) -> SentKey:
    """Return the key of a request. No error has a part of it.

    An Authorization header of another scheme may be that of a proxy: it is no error next to X-API-Key.

    Raises:
        Unauthenticated: there is none.
        InvalidRequest: there are two different ones.
    """
    authorization = environ.get("HTTP_AUTHORIZATION", "")
    scheme, _, credentials = authorization.partition(" ")
    bearer = credentials.strip() if scheme.lower() == "bearer" else ""
    other = environ.get("HTTP_X_API_KEY", "").strip()
    if bearer and other and bearer != other:
        raise InvalidRequest(f"{_AUTHORIZATION} and {KEY_HEADER} have different keys", field=KEY_HEADER, expected="one of them")
    if bearer:
        return SentKey(bearer, _AUTHORIZATION)
    if other:
        return SentKey(other, KEY_HEADER)
    if authorization:
        raise Unauthenticated(f"the header {_AUTHORIZATION} has no bearer token", expected=_EXPECTED)
    raise Unauthenticated("this request needs a key", expected=_EXPECTED)
