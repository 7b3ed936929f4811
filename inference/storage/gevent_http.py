"""Puts to an object store from greenlets: the most frequent call of the API, and most of its time was urllib3's."""

from __future__ import annotations

import time
from typing import Any

import urllib3
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPParseError
from urllib3.response import HTTPResponse

_TRIES = 3
_PAUSE_S = 0.1
_PASSING = (502, 503, 504)


class GeventPoolManager(urllib3.PoolManager):
    """urllib3's, but for a PUT of bytes: geventhttpclient, whose parser is in C, takes 0.6 of the CPU time. Plain HTTP only.

    Args:
        host, port: the one server that is asked.
        connections: to it, at a time.
        options: urllib3's, for all other calls.
    """

    def __init__(
        self, host: str, port: int, *, connections: int, connect_timeout_s: float, read_timeout_s: float, **options: Any
    ) -> None:
        super().__init__(**options)
        self._client = HTTPClient(
            host, port, concurrency=connections, connection_timeout=connect_timeout_s, network_timeout=read_timeout_s
        )

    def urlopen(self, method: str, url: str, redirect: bool = True, **options: Any) -> Any:  # type: ignore[override] # urllib3's own
        body = options.get("body")
        if method != "PUT" or not isinstance(body, bytes):
            return super().urlopen(method, url, redirect, **options)
        path = "/" + url.split("/", 3)[3]
        for attempt in range(1, _TRIES):
            try:
                response = self._put(path, body, options["headers"])
            except urllib3.exceptions.HTTPError:
                pass
            else:
                if response.status not in _PASSING:
                    return response
            time.sleep(_PAUSE_S * attempt)
        return self._put(path, body, options["headers"])

    def _put(self, path: str, body: bytes, headers: Any) -> HTTPResponse:
        try:
            answer = self._client.request("PUT", path, body, headers=dict(headers))
            content = answer.read()
        except (HTTPParseError, OSError) as error:
            raise urllib3.exceptions.ProtocolError(f"{self._client.host}:{self._client.port}: {error}") from error
        return HTTPResponse(bytes(content), headers=dict(answer.items()), status=answer.status_code)
