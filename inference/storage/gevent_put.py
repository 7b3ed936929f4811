"""Puts to an object store from greenlets: the most frequent call of the API, and most of its time was the client's."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import cast
from urllib.parse import SplitResult, quote

import urllib3
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPParseError
from minio.credentials.credentials import Credentials
from minio.signer import sign_v4_s3
from minio.time import to_amz_date


class GeventPut:
    """An object in one request over plain HTTP: signed by minio's signer, sent by geventhttpclient, whose parser is in C.

    Args:
        address: HOST or HOST:PORT of the one server that is asked.
        connections: to it.
    """

    def __init__(
        self, address: str, credentials: Credentials, region: str, *, connections: int, timeout: urllib3.Timeout
    ) -> None:
        server = urllib3.util.parse_url(f"http://{address}")
        self._address = address
        self._credentials = credentials
        self._region = region
        connect_s, read_s = cast("float", timeout.connect_timeout), cast("float", timeout.read_timeout)
        self._client = HTTPClient(
            server.host or "127.0.0.1",
            server.port or 80,
            concurrency=connections,
            connection_timeout=connect_s,
            network_timeout=read_s,
        )

    def __call__(self, bucket: str, key: str, data: bytes, *, sha256: str, headers: Mapping[str, str]) -> bool:
        """Whether it is there now. If not, let minio's own client try: it waits for who is busy, and says what is wrong.

        Raises TimeoutError: the server does not answer.
        """
        date = datetime.now(UTC)
        path = quote(f"/{bucket}/{key}")
        signed = sign_v4_s3(
            method="PUT",
            url=SplitResult("http", self._address, path, "", ""),
            region=self._region,
            headers={"Host": self._address, "x-amz-content-sha256": sha256, "x-amz-date": to_amz_date(date), **headers},
            credentials=self._credentials,
            content_sha256=sha256,
            date=date,
        )
        try:
            answer = self._client.request("PUT", path, data, headers=cast("dict[str, str]", signed))
            answer.read()
        except TimeoutError:
            raise
        except (HTTPParseError, OSError):
            return False
        return bool(answer.status_code == HTTPStatus.OK)
