"""Compressed bodies of requests and answers: gzip, and deflate, which is zlib's format (RFC 9110, section 8.4.1)."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial

from werkzeug.datastructures import Accept

from inference.errors import InvalidRequest, PayloadTooLarge, UnsupportedContentEncoding, shown
from inference.runtime.gevent import run_blocking

#: zlib's numbers of the formats.
_FORMATS = {"gzip": 31, "deflate": 15}
#: Bytes that are inflated in one call, and compressed bytes that one call gets.
_STEP_BYTES = 2**20
_PIECE_BYTES = 2**16
#: Compressed bytes from which a body is inflated off the event loop.
_LONG_BYTES = 2**12
#: Size from which an answer is compressed, and from which that is done off the event loop.
_MIN_BYTES = 2**10
_MANY_BYTES = 2**18
#: Quickest level: vectors of floats become little smaller at any level.
_LEVEL = 1


def check_encoding(encoding: str) -> None:
    """Check the Content-Encoding of a request. Raises UnsupportedContentEncoding."""
    if encoding not in {"", "identity", *_FORMATS}:
        raise UnsupportedContentEncoding(
            f"the body has the Content-Encoding {shown(encoding)}", field="Content-Encoding", expected="gzip, deflate or none"
        )


def inflate(body: bytes, encoding: str, *, max_bytes: int, hold: Callable[[int], None]) -> bytes:
    """Inflate a body.

    Args:
        encoding: gzip or deflate.
        max_bytes: limit of the result.
        hold: called with the number of new bytes, before more are inflated; may raise.

    Raises:
        InvalidRequest: it is not in this format, or incomplete.
        PayloadTooLarge: the result is longer than the limit.
    """
    inflater = zlib.decompressobj(_FORMATS[encoding])
    run = run_blocking if len(body) >= _LONG_BYTES else _run
    pieces, size, at = [], 0, 0
    while not inflater.eof:
        data = inflater.unconsumed_tail
        if not data:
            data, at = body[at : at + _PIECE_BYTES], at + _PIECE_BYTES
        try:
            piece = run(partial(inflater.decompress, data, _STEP_BYTES))
        except zlib.error as error:
            raise InvalidRequest(f"the body is not {encoding}: {error}", field="Content-Encoding") from error
        if not data and not piece and not inflater.eof:
            raise InvalidRequest(f"the {encoding} body ends too early", field="Content-Encoding")
        size += len(piece)
        if size > max_bytes:
            raise PayloadTooLarge(f"the inflated body is larger than {max_bytes} bytes (api.max_body_bytes)")
        hold(len(piece))
        pieces.append(piece)
    rest = len(inflater.unused_data) + max(0, len(body) - at)
    if rest:  # further members of a gzip file too: no client sends them, and each could be tiny
        raise InvalidRequest(f"{rest} bytes follow the {encoding} body", field="Content-Encoding")
    return b"".join(pieces)


def chosen_encoding(accepted: Accept, size: int) -> str | None:
    """Choose the encoding of an answer; None for an answer that is sent as it is."""
    return accepted.best_match(_FORMATS) if accepted and size >= _MIN_BYTES else None


def deflate(body: bytes, encoding: str) -> bytes:
    """Compress an answer."""
    run = run_blocking if len(body) >= _MANY_BYTES else _run
    return run(partial(zlib.compress, body, _LEVEL, _FORMATS[encoding]))


def _run(call: Callable[[], bytes]) -> bytes:
    return call()
