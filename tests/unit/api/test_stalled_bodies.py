"""Bodies that stop coming: what is there of them is counted, whoever reads them, but for less than a step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.http.body import ChunkedReader, LengthReader

from api.forms.parser import FormParser
from api.server.body_budget import BodyBudget
from api.server.http_messages import STEP_BYTES, HttpBody
from api.server.minimum_pace import Pace, PacedUnreader
from inference.errors import InferenceError, RequestTimeout

MIB = 2**20
PART = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'


class StallingSocket:
    """A client's socket from which these bytes come, and then nothing within any time."""

    def __init__(self, data: bytes) -> None:
        self._data = BytesIO(data)

    def settimeout(self, _seconds: float) -> None:
        """Nothing is waited for here."""

    def recv(self, size: int) -> bytes:
        data = self._data.read(size)
        if not data:
            raise TimeoutError
        return data


def read_form(body: HttpBody, content_type: str, options: dict[str, str]) -> None:
    FormParser(max_form_memory_size=2 * MIB).parse(body, content_type, None, options)


READERS: dict[str, Callable[[Any], Any]] = {
    "json": lambda body: body.read(4 * MIB + 1),
    "whole": lambda body: body.read(),
    "urlencoded": lambda body: read_form(body, "application/x-www-form-urlencoded", {}),
    "multipart": lambda body: read_form(body, "multipart/form-data", {"boundary": "b"}),
    "lines": lambda body: body.readlines(),
}


def length_reader(data: bytes, length: int) -> Any:
    return LengthReader(PacedUnreader(StallingSocket(data), Pace(1, 1)), length)


def chunked_reader(data: bytes, length: int) -> Any:
    unreader = PacedUnreader(StallingSocket(b"%x\r\n" % length + data), Pace(1, 1))
    return ChunkedReader(SimpleNamespace(), unreader)


@pytest.fixture(params=[length_reader, chunked_reader])
def stalled(request: pytest.FixtureRequest) -> tuple[HttpBody, int]:
    """A body of 1 MiB whose last byte does not come, and how many bytes came."""
    data = PART + b"a" * (MIB - 1 - len(PART))
    return HttpBody(request.param(data, MIB)), len(data)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_what_has_come_is_counted(stalled: tuple[HttpBody, int], read: Callable[[HttpBody], Any]) -> None:
    body, came = stalled
    budget = BodyBudget(64 * MIB)
    body.reserve_in(budget)
    with pytest.raises(RequestTimeout):
        read(body)
    assert came - STEP_BYTES < budget.used <= came
    body.release()
    assert budget.used == 0


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_without_room_the_rest_is_not_waited_for(stalled: tuple[HttpBody, int], read: Callable[[HttpBody], Any]) -> None:
    body, _ = stalled
    budget = BodyBudget(MIB // 2)
    body.reserve_in(budget)
    with pytest.raises(InferenceError, match="as many request bodies as it can"):
        read(body)
    assert budget.used == 0


def test_what_is_dropped_is_not_kept(stalled: tuple[HttpBody, int]) -> None:
    body, _ = stalled
    with contextlib.suppress(RequestTimeout):
        body.drop()
    reader: Any = body.reader
    buffers = [body.buf, reader.buf if isinstance(reader, ChunkedReader) else reader.unreader.buf]
    assert sum(buffer.tell() for buffer in buffers) < STEP_BYTES
